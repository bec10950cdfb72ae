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

// Every thread of the workgroup of `THREADS` threads gets the result: lanes by halves, then waves in order.
template <typename Operation, int THREADS, typename T>
DEVICE T reduce_workgroup(T value, OfWaves<THREADS, T> &of_wave) {
  constexpr int WAVES = THREADS / WAVE_SIZE;
  value = reduce_lanes<Operation, WAVE_SIZE>(value);
  barrier();  // an earlier reduction may still be read
  if (lane_id() == 0) of_wave[wave_id()] = value;
  barrier();
  T result = of_wave[0];
#pragma unroll
  for (int wave = 1; wave < WAVES; ++wave) result = Operation::combine(result, of_wave[wave]);
  return result;
}

// Sum of `value` over the lanes up to and including this one.
DEVICE int inclusive_sum_of_wave(int value) {
#pragma unroll
  for (int distance = 1; distance < WAVE_SIZE; distance *= 2) {
    int below = wave_read(value, lane_id() >= distance ? lane_id() - distance : lane_id());
    if (lane_id() >= distance) value += below;
  }
  return value;
}

// Sum of `value` over the threads up to and including this one; `total` receives the sum over all `THREADS`.
template <int THREADS>
DEVICE int inclusive_sum_of_workgroup(int value, int &total, OfWaves<THREADS, int> &of_wave) {
  constexpr int WAVES = THREADS / WAVE_SIZE;
  static_assert(WAVES <= WAVE_SIZE);
  value = inclusive_sum_of_wave(value);
  barrier();  // an earlier scan may still be read
  if (lane_id() == WAVE_SIZE - 1) of_wave[wave_id()] = value;
  barrier();
  int upto_wave = inclusive_sum_of_wave(lane_id() < WAVES ? of_wave[lane_id()] : 0);
  total = wave_read(upto_wave, WAVES - 1);
  int before = wave_read(upto_wave, wave_id() > 0 ? wave_id() - 1 : 0);
  return wave_id() > 0 ? before + value : value;
}
