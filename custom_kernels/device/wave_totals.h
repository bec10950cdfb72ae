// Work of a product that is shared over its columns by the waves of a workgroup: each wave's fragments, and the sum.
#pragma once

#include "matrix.h"
#include "pipeline.h"

// The fragments first, first + WAVES, ... of a row's FRAGMENTS, which one of WAVES waves multiplies in STEPS steps.
template <int FRAGMENTS, int WAVES> struct FragmentShare {
  static constexpr int STEPS = divide_up(FRAGMENTS, WAVES);
  int first;

  // Known when compiling where the waves share evenly; otherwise a wave's last step may have nothing to multiply.
  MEMBER bool has(int step) const {
    return FRAGMENTS % WAVES == 0 || first + step * WAVES < FRAGMENTS;
  }
  // Where there is nothing to multiply, a fragment that exists: loads need no condition.
  MEMBER int fragment(int step) const {
    return has(step) ? first + step * WAVES : FRAGMENTS - 1;
  }
};

// Sums of 16 weight rows and PART_ROWS activation rows, [column][row] as in a part of an `Accumulator`.
struct PartTotals {
  float element[PART_COLUMNS][ACCUMULATOR_ROWS] = {};
};

// Workgroup memory of `add_waves`: rows are padded so that a wave's stores meet no bank twice.
template <int WAVES, int ROWS> struct WaveTotals {
  alignas(16) float of_wave[WAVES][ROWS][TILE + 4];
};

// Workgroup memory of a product: first of its loads, then of its sums.
template <int WAVES, int ROWS, int ROWS_AHEAD> union ProductMemory {
  LaneRingMemory<ROWS_AHEAD, WAVES> rows;
  WaveTotals<WAVES, ROWS> totals;
};

// Keeps a wave's totals where the others read them, after a barrier.
template <int WAVES, int PARTS>
DEVICE void keep_totals(const PartTotals (&totals)[PARTS], WaveTotals<WAVES, PARTS * PART_ROWS> &shared) {
#pragma unroll
  for (int part = 0; part < PARTS; ++part)
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
        shared.of_wave[wave_id()][part * PART_ROWS + accumulator_column(c)][accumulator_row(r)] =
            totals[part].element[c][r];
}

// Sums over the waves, in their order, of an activation row and four weight rows, from `column` on.
template <int WAVES, int ROWS>
DEVICE float4 sum_of_waves(const WaveTotals<WAVES, ROWS> &shared, int row, int column) {
  float4 sum = *(const float4 *)&shared.of_wave[0][row][column];
#pragma unroll
  for (int wave = 1; wave < WAVES; ++wave) sum += *(const float4 *)&shared.of_wave[wave][row][column];
  return sum;
}

// Adds the waves' totals in wave order and calls `store(activation row, weight row, sum)` once per element, weight rows
// along the threads. Every thread of the workgroup of WAVES waves must call.
template <int WAVES, int PARTS, typename Store>
DEVICE void add_waves(const PartTotals (&totals)[PARTS], WaveTotals<WAVES, PARTS * PART_ROWS> &shared, Store store) {
  auto &of_wave = shared.of_wave;
  barrier();  // an earlier call's totals may still be read
  keep_totals<WAVES>(totals, shared);
  barrier();
  for (int i = thread_id(); i < PARTS * PART_ROWS * TILE; i += WAVES * WAVE_SIZE) {
    float sum = of_wave[0][i / TILE][i % TILE];
#pragma unroll
    for (int wave = 1; wave < WAVES; ++wave) sum += of_wave[wave][i / TILE][i % TILE];
    store(i / TILE, i % TILE, sum);
  }
}
