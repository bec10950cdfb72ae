// Products of quantised activation rows with bands (16 rows) of a block-scaled weight.
#pragma once

#include "pipeline.h"
#include "wave_totals.h"

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

// Band `band` of a tiled matrix.
DEVICE WeightBand weight_band(const uint8 *values, const float *scales, int columns, int band) {
  return {values + int64(band) * TILE * columns, scales + int64(band / BANDS_PER_SCALE) * (columns / GROUP)};
}

// The same fragment of BANDS bands, and each band's scale of its columns.
template <int BANDS> struct BandFragments {
  Fragment values[BANDS];
  float scales[BANDS];
};

// One part of a fragment of activation rows, and the scales of the rows that the lane sums for.
struct ScaledPart {
  uint32x4 values;
  float scales[PART_COLUMNS];
};

// totals[band][part] += product over a wave's share of the columns of the bands with PARTS * PART_ROWS activation
// rows, local row i being row `row_of(i)` of `x`. Each fragment is summed by the matrix unit, then scaled in float32.
// WEIGHTS_AHEAD, ROWS_AHEAD: see pipeline.h.
template <int WEIGHTS_AHEAD, int ROWS_AHEAD, int FRAGMENTS, int WAVES, int BANDS, int PARTS, typename RowOf>
DEVICE void multiply_bands(const QuantizedRows &x, RowOf row_of, const WeightBand (&bands)[BANDS],
                           const FragmentShare<FRAGMENTS, WAVES> &share, PartTotals (&totals)[BANDS][PARTS]) {
  auto load_weights = [&](int step) INLINE {
    int fragment = share.fragment(step);
    BandFragments<BANDS> loaded;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) loaded.values[band] = load_tiled_fragment(bands[band].values, fragment);
#pragma unroll
    for (int band = 0; band < BANDS; ++band) loaded.scales[band] = bands[band].scales[fragment / FRAGMENTS_PER_GROUP];
    return loaded;
  };
  auto load_rows = [&](int step, int part) INLINE {
    int fragment = share.fragment(step), column = fragment * FRAGMENT_COLUMNS + fragment_tile() * TILE;
    ScaledPart loaded;
    int row = row_of(part * PART_ROWS + fragment_row(0));
    loaded.values = *(const uint32x4 *)(x.values + row_major_offset(row, column, x.columns));
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c)
      loaded.scales[c] = x.scales[group_major_scale_offset(row_of(part * PART_ROWS + accumulator_column(c)),
                                                           fragment / FRAGMENTS_PER_GROUP, x.rows)];
    return loaded;
  };
  auto multiply = [&](const BandFragments<BANDS> &weights, const ScaledPart &rows, int step, int part) INLINE {
    if (!share.has(step)) return;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      PartTotals sums;
      multiply_part(weights.values[band], rows.values, sums.element);
#pragma unroll
      for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
        for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
          totals[band][part].element[c][r] += weights.scales[band] * rows.scales[c] * sums.element[c][r];
    }
  };
  constexpr int STEPS = FragmentShare<FRAGMENTS, WAVES>::STEPS;
  multiply_ahead<STEPS, PARTS, WEIGHTS_AHEAD, ROWS_AHEAD>(load_weights, load_rows, multiply);
}
