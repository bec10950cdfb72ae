// Products of quantised activation rows with a block-scaled weight: 16 weight rows (a band) per workgroup.
#pragma once

#include "matrix.h"

constexpr int FRAGMENTS_PER_GROUP = GROUP / FRAGMENT_COLUMNS;
constexpr int BANDS_PER_SCALE = GROUP / TILE;

// FP8 values [rows, columns] with one float32 scale per 128 columns, stored [columns / 128, rows].
struct QuantizedRows {
  const uint8 *values;
  const float *scales;
  int rows;
  int columns;
};

// 16 rows of a tiled weight, and the scales of their row of 128 x 128 blocks.
struct WeightBand {
  const uint8 *values;
  const float *scales;
};

// Band `band` of matrix `index` among consecutive tiled matrices of `bands` bands each.
DEVICE WeightBand weight_band(const uint8 *values, const float *scales, int index, int bands, int columns,
                              int band) {
  int64 scale_row = int64(index) * divide_up(bands, BANDS_PER_SCALE) + band / BANDS_PER_SCALE;
  return {values + (int64(index) * bands + band) * TILE * columns, scales + scale_row * (columns / GROUP)};
}

// Where the lanes of a wave find the 16 * TILES activation rows of a workgroup, as fragments and sums lie.
template <int TILES> struct RowPointers {
  const uint8 *values[TILES][FRAGMENT_PARTS];
  const float *scales[TILES][ACCUMULATOR_COLUMNS];
};

// Local row i is row `row_of(i)` of `x`, which must exist for every i.
template <int TILES, typename RowOf>
DEVICE RowPointers<TILES> row_pointers(const QuantizedRows &x, RowOf row_of) {
  RowPointers<TILES> rows;
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile) {
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      rows.values[tile][part] =
          x.values + row_major_offset(row_of(tile * TILE + fragment_row(part)), 0, x.columns);
#pragma unroll
    for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
      rows.scales[tile][c] = x.scales + row_of(tile * TILE + accumulator_column(c));
  }
  return rows;
}

// Multiplies DEPTH groups at a time, whose weights are loaded together, then the rest by halves.
template <int DEPTH, int TILES>
DEVICE void multiply_groups_by(const QuantizedRows &x, const RowPointers<TILES> &rows, int row_tiles,
                               const WeightBand &band, int group, int step, Accumulator (&totals)[TILES]) {
  for (; group + (DEPTH - 1) * step < x.columns / GROUP; group += DEPTH * step) {
    Fragment weight[DEPTH][FRAGMENTS_PER_GROUP];
#pragma unroll
    for (int d = 0; d < DEPTH; ++d)
#pragma unroll
      for (int i = 0; i < FRAGMENTS_PER_GROUP; ++i)
        weight[d][i] = load_tiled_fragment(band.values, (group + d * step) * FRAGMENTS_PER_GROUP + i);
#pragma unroll
    for (int tile = 0; tile < TILES; ++tile) {
      if (tile >= row_tiles) break;
#pragma unroll
      for (int d = 0; d < DEPTH; ++d) {
        Accumulator sums;
#pragma unroll
        for (int i = 0; i < FRAGMENTS_PER_GROUP; ++i)
          multiply(weight[d][i],
                   load_row_fragment(rows.values[tile], (group + d * step) * FRAGMENTS_PER_GROUP + i), sums);
        float weight_scale = band.scales[group + d * step];
#pragma unroll
        for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c) {
          // An activation has few scales: 32 bits hold their offsets.
          int group_scale = int(group_major_scale_offset(0, group + d * step, x.rows));
          float scale = weight_scale * rows.scales[tile][c][group_scale];
#pragma unroll
          for (int r = 0; r < ACCUMULATOR_ROWS; ++r) totals[tile].element[c][r] += scale * sums.element[c][r];
        }
      }
    }
  }
  if constexpr (DEPTH > 1) multiply_groups_by<DEPTH / 2>(x, rows, row_tiles, band, group, step, totals);
}

// totals[tile] (weight row, activation row) += product over the columns' groups first, first + step, ...
// Only the first `row_tiles` tiles are computed. The matrix unit sums a group; it is then scaled in float32.
template <int TILES, typename RowOf>
DEVICE void multiply_groups(const QuantizedRows &x, RowOf row_of, int row_tiles, const WeightBand &band,
                            int first, int step, Accumulator (&totals)[TILES]) {
  constexpr int DEPTH = 4;  // enough loads under way to hide the latency of memory, in few enough registers
  multiply_groups_by<DEPTH>(x, row_pointers<TILES>(x, row_of), row_tiles, band, first, step, totals);
}

// Workgroup memory of `sum_waves`.
template <int TILES, int WAVE_COUNT> struct WaveSums {
  float of_wave[WAVE_COUNT][TILES * TILE][TILE];
};

// Adds the waves' totals in wave order and calls `store(activation row, weight row, sum)` once per element,
// weight rows along the threads. Every thread of the workgroup of `WAVE_COUNT` waves must call.
template <int TILES, int WAVE_COUNT, typename Store>
DEVICE void sum_waves(const Accumulator (&totals)[TILES], WaveSums<TILES, WAVE_COUNT> &shared, Store store) {
  auto &of_wave = shared.of_wave;
  barrier();  // an earlier call's sums may still be read
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
        of_wave[wave_id()][tile * TILE + accumulator_column(c)][accumulator_row(r)] =
            totals[tile].element[c][r];
  barrier();
  for (int i = thread_id(); i < TILES * TILE * TILE; i += WAVE_COUNT * WAVE_SIZE) {
    float sum = of_wave[0][i / TILE][i % TILE];
#pragma unroll
    for (int wave = 1; wave < WAVE_COUNT; ++wave) sum += of_wave[wave][i / TILE][i % TILE];
    store(i / TILE, i % TILE, sum);
  }
}
