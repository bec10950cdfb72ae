// Reductions and scans over lanes, waves and workgroups, each in one fixed order: same input, same bits.
#pragma once

#include "compiler.h"

struct Sum {
  template <typename T> DEVICE T combine(T a, T b) { return a + b; }
};

struct Minimum {
  template <typename T> DEVICE T combine(T a, T b) { return a < b ? a : b; }
};

struct Maximum {
  template <typename T> DEVICE T combine(T a, T b) { return a > b ? a : b; }
};

// Every lane of each aligned run of `LANES` lanes gets the run's result. All lanes must take part.
template <typename Operation, int LANES, typename T> DEVICE T reduce_lanes(T value) {
#pragma unroll
  for (int distance = 1; distance < LANES; distance *= 2)
    value = Operation::combine(value, wave_read(value, lane_id() ^ distance));
  return value;
}

// Workgroup memory of a reduction or scan over `THREADS` threads.
template <int THREADS, typename T> using OfWaves = T[THREADS / WAVE_SIZE];

// Every thread of the workgroup of `THREADS` threads gets the result: lanes by halves, then waves in order. `of_wave`
// must not be in use.
template <typename Operation, int THREADS, typename T>
DEVICE T reduce_threads(T value, OfWaves<THREADS, T> &of_wave) {
  constexpr int WAVES = THREADS / WAVE_SIZE;
  value = reduce_lanes<Operation, WAVE_SIZE>(value);
  if (lane_id() == 0) of_wave[wave_id()] = value;
  barrier();
  T result = of_wave[0];
#pragma unroll
  for (int wave = 1; wave < WAVES; ++wave) result = Operation::combine(result, of_wave[wave]);
  return result;
}

// The same, of memory that an earlier reduction or scan may still read.
template <typename Operation, int THREADS, typename T>
DEVICE T reduce_workgroup(T value, OfWaves<THREADS, T> &of_wave) {
  barrier();
  return reduce_threads<Operation, THREADS>(value, of_wave);
}

// Sum of `value` over the lanes up to and including this one.
DEVICE int inclusive_sum_of_wave(int value) {
#pragma unroll
  for (int distance = 1; distance < WAVE_SIZE; distance *= 2) {
#if defined(__NVPTX__)  // the read tells whether there is such a lane
    asm volatile(
        "{ .reg .pred exists; .reg .b32 below;\n\t"
        "shfl.sync.up.b32 below|exists, %0, %1, 0, -1;\n\t"
        "@exists add.s32 %0, %0, below; }"
        : "+r"(value)
        : "n"(distance));
#else
    int below = wave_read(value, lane_id() >= distance ? lane_id() - distance : lane_id());
    if (lane_id() >= distance) value += below;
#endif
  }
  return value;
}

// Every lane of the wave gets the result. All lanes must take part.
template <typename Operation> DEVICE int reduce_wave(int value) { return reduce_lanes<Operation, WAVE_SIZE>(value); }
#if defined(__NVPTX__)
template <> DEVICE int reduce_wave<Sum>(int value) { return __nvvm_redux_sync_add(value, 0xFFFFFFFF); }
template <> DEVICE int reduce_wave<Minimum>(int value) { return __nvvm_redux_sync_min(value, 0xFFFFFFFF); }
template <> DEVICE int reduce_wave<Maximum>(int value) { return __nvvm_redux_sync_max(value, 0xFFFFFFFF); }
#endif

// Sum of `value` over the threads up to and including this one; `total` receives the sum over all `THREADS`. `of_wave`
// must not be in use.
template <int THREADS>
DEVICE int inclusive_sum_of_threads(int value, int &total, OfWaves<THREADS, int> &of_wave) {
  constexpr int WAVES = THREADS / WAVE_SIZE;
  static_assert(WAVES <= WAVE_SIZE);
  value = inclusive_sum_of_wave(value);
  if (lane_id() == WAVE_SIZE - 1) of_wave[wave_id()] = value;
  barrier();
  int of_lanes_wave = lane_id() < WAVES ? of_wave[lane_id()] : 0;
  total = reduce_wave<Sum>(of_lanes_wave);
  return value + reduce_wave<Sum>(lane_id() < wave_id() ? of_lanes_wave : 0);
}

// The same, of memory that an earlier reduction or scan may still read.
template <int THREADS>
DEVICE int inclusive_sum_of_workgroup(int value, int &total, OfWaves<THREADS, int> &of_wave) {
  barrier();
  return inclusive_sum_of_threads<THREADS>(value, total, of_wave);
}
