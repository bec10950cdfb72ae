// Products of quantised activation rows with bands (16 rows) of a block-scaled weight.
#pragma once

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

// A fragment of BANDS bands, and the scales of its columns: each band's, and those of the rows that the lane sums for.
template <int BANDS, int PARTS> struct ScaledFragments {
  Fragment values[BANDS];
  float scales[BANDS];
  float row_scales[PARTS][PART_COLUMNS];
};

// totals[band][part] += product over a wave's share of the columns of the bands with PARTS * PART_ROWS activation
// rows, local row i being row `row_of(i)` of `x`. Each fragment is summed by the matrix unit, then scaled in float32.
// WEIGHTS_AHEAD, ROWS_AHEAD: see pipeline.h.
template <int WEIGHTS_AHEAD, int ROWS_AHEAD, int FRAGMENTS, int WAVES, int BANDS, int PARTS, typename RowOf>
DEVICE void multiply_bands(const QuantizedRows &x, RowOf row_of, const WeightBand (&bands)[BANDS],
                           const FragmentShare<FRAGMENTS, WAVES> &share, LaneRingMemory<ROWS_AHEAD, WAVES> &memory,
                           PartTotals (&totals)[BANDS][PARTS]) {
  auto load_weights = [&](int step) INLINE {
    int fragment = share.fragment(step), group = fragment / FRAGMENTS_PER_GROUP;
    ScaledFragments<BANDS, PARTS> loaded;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) loaded.values[band] = load_tiled_fragment(bands[band].values, fragment);
#pragma unroll
    for (int band = 0; band < BANDS; ++band) loaded.scales[band] = bands[band].scales[group];
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
      for (int c = 0; c < PART_COLUMNS; ++c)
        loaded.row_scales[part][c] =
            x.scales[group_major_scale_offset(row_of(part * PART_ROWS + accumulator_column(c)), group, x.rows)];
    return loaded;
  };
  auto row_address = [&](int step, int part) INLINE {
    int column = share.fragment(step) * FRAGMENT_COLUMNS + fragment_tile() * TILE;
    return x.values + row_major_offset(row_of(part * PART_ROWS + fragment_row(0)), column, x.columns);
  };
  auto multiply = [&](const ScaledFragments<BANDS, PARTS> &weights, uint32x4 rows, int step, int part) INLINE {
    if (!share.has(step)) return;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      PartTotals sums;
      multiply_part(weights.values[band], rows, sums.element);
#pragma unroll
      for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
        for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
          totals[band][part].element[c][r] += weights.scales[band] * weights.row_scales[part][c] * sums.element[c][r];
    }
  };
  constexpr int STEPS = FragmentShare<FRAGMENTS, WAVES>::STEPS;
  multiply_ahead<STEPS, PARTS, WEIGHTS_AHEAD>(memory, load_weights, row_address, multiply);
}
