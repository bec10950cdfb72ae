// Exclusive or of one piece per workgroup, from piece `first` on. THREADS; PIECE_WORDS: 32-bit words of a piece.
#include "reduce.h"

struct StreamShared {
  OfWaves<THREADS, int> of_wave;
};

struct ExclusiveOr {
  template <typename T> DEVICE T combine(T a, T b) { return a ^ b; }
};

DEVICE void stream_read(Workgroup workgroup, StreamShared &shared, const uint32x4 *data, const int *before, int *result,
                        int first) {
  constexpr int VECTORS = PIECE_WORDS / 4, LOADS = VECTORS / THREADS;
  static_assert(LOADS * THREADS == VECTORS);
  const uint32x4 *piece = data + (int64(first) + workgroup.x) * VECTORS + thread_id();
  int sum_before = *before;
  uint32x4 loaded[LOADS], sum = {};
#pragma unroll
  for (int i = 0; i < LOADS; ++i) loaded[i] = piece[i * THREADS];
#pragma unroll
  for (int i = 0; i < LOADS; ++i) sum ^= loaded[i];
  int combined = sum.x ^ sum.y ^ sum.z ^ sum.w;
  combined = reduce_workgroup<ExclusiveOr, THREADS>(combined, shared.of_wave);
  if (thread_id() == 0) result[workgroup.x] = combined ^ sum_before;
}
