// Block-scaled FP8 products on the CPU: 16 weight rows at a time, decoded once for many activation rows.
#pragma once

#include "cpu.h"

// Quantised activations [rows, columns] with group-major scales.
struct Activation {
  const uint8 *values;
  const float *scales;
  int64 rows, columns;
};

// 16 rows of a tiled weight [N, K]: `values` at the band's first byte, `scales` at its row of scale blocks.
struct WeightBand {
  const uint8 *values;
  const float *scales;
};

// Band `band` of a weight, or of one expert's among many.
DEVICE WeightBand weight_band(const uint8 *values, const float *scales, int64 matrix, int64 rows, int64 columns,
                              int64 band) {
  int64 blocks = (rows + GROUP - 1) / GROUP, groups = columns / GROUP;
  return {values + (matrix * rows + band * TILE) * columns,
          scales + (matrix * blocks + band * TILE / GROUP) * groups};
}

// sums[i][n] = product of activation row `rows[i]` and the band's row n.
DEVICE void multiply_band(const Activation &x, const int64 *rows, int count, const WeightBand &weight,
                          float (*sums)[TILE]) {
  for (int i = 0; i < count; ++i)
    for (int n = 0; n < TILE; ++n) sums[i][n] = 0;
  for (int64 group = 0; group < x.columns / GROUP; ++group) {
    float block[GROUP][TILE];  // transposed: the weight rows are the vector
    for (int k = 0; k < GROUP; ++k)
      for (int n = 0; n < TILE; ++n)
        block[k][n] = decode_fp8(weight.values[tiled_16x16_offset(n, group * GROUP + k, x.columns)]);
    for (int i = 0; i < count; ++i) {
      float input[GROUP], partial[TILE];
      decode_fp8(x.values + rows[i] * x.columns + group * GROUP, input, GROUP);
      for (int n = 0; n < TILE; ++n) partial[n] = 0;
      for (int k = 0; k < GROUP; ++k)
        for (int n = 0; n < TILE; ++n) partial[n] += input[k] * block[k][n];
      float scale = x.scales[group_major_scale_offset(rows[i], group, x.rows)] * weight.scales[group];
      for (int n = 0; n < TILE; ++n) sums[i][n] += partial[n] * scale;
    }
  }
}
