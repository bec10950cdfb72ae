// Exclusive or of one piece per workgroup. THREADS; PIECE_WORDS: 32-bit words of a piece.
#include "reduce.h"

struct StreamShared {
  OfWaves<THREADS, int> of_wave;
};

struct ExclusiveOr {
  template <typename T> DEVICE T combine(T a, T b) { return a ^ b; }
};

DEVICE void stream_read(Workgroup workgroup, StreamShared &shared, const uint32x4 *data, int *result) {
  constexpr int VECTORS = PIECE_WORDS / 4, LOADS = VECTORS / THREADS;
  const uint32x4 *piece = data + int64(workgroup.x) * VECTORS;
  uint32x4 loaded[LOADS];
  // All loads are under way before the first one is used.
#pragma unroll
  for (int i = 0; i < LOADS; ++i) loaded[i] = piece[i * THREADS + thread_id()];
#pragma unroll
  for (int i = 1; i < LOADS; ++i) loaded[0] ^= loaded[i];
  int combined = loaded[0].x ^ loaded[0].y ^ loaded[0].z ^ loaded[0].w;
  combined = reduce_workgroup<ExclusiveOr, THREADS>(combined, shared.of_wave);
  if (thread_id() == 0) result[workgroup.x] = combined;
}
