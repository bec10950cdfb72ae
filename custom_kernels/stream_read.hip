// Exclusive or of one piece per workgroup. THREADS; PIECE_WORDS: 32-bit words of a piece.
#include "reduce.h"

struct StreamShared {
  OfWaves<THREADS, int> of_wave;
};

struct ExclusiveOr {
  template <typename T> DEVICE T combine(T a, T b) { return a ^ b; }
};

DEVICE void stream_read(Workgroup workgroup, StreamShared &shared, const uint32x4 *data, int *result) {
  constexpr int VECTORS = PIECE_WORDS / 4, LOADS = 8, STEP = LOADS * THREADS;
  static_assert(VECTORS % STEP == 0);
  const uint32x4 *piece = data + int64(workgroup.x) * VECTORS + thread_id();
  uint32x4 loaded[LOADS], sum = {};
#pragma unroll
  for (int i = 0; i < LOADS; ++i) loaded[i] = piece[i * THREADS];
  for (int first = STEP; first <= VECTORS; first += STEP) {
    // The next loads are under way before the last ones are used; the last turn repeats its own.
    const uint32x4 *next = piece + (first < VECTORS ? first : first - STEP);
    uint32x4 coming[LOADS];
#pragma unroll
    for (int i = 0; i < LOADS; ++i) coming[i] = next[i * THREADS];
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      sum ^= loaded[i];
      loaded[i] = coming[i];
    }
  }
  int combined = sum.x ^ sum.y ^ sum.z ^ sum.w;
  combined = reduce_workgroup<ExclusiveOr, THREADS>(combined, shared.of_wave);
  if (thread_id() == 0) result[workgroup.x] = combined;
}
