// Block-scaled FP8 matrix multiplication: a workgroup makes 16 output columns of up to 64 rows.
#include "cpu_block_scaled.h"

constexpr int ROWS = 64;

extern "C" void gemm_fp8_blockscale(BUFFER(values), BUFFER(scales), BUFFER(weight), BUFFER(weight_scales),
                                    BUFFER(result), int64 rows, int64 columns, int64 depth, int64 band, int64 part,
                                    int64) {
  Activation x = {POINTER(const uint8, values), POINTER(const float, scales), rows, depth};
  WeightBand weights = weight_band(POINTER(const uint8, weight), POINTER(const float, weight_scales), 0, columns,
                                   depth, band);
  int64 index[ROWS];
  float sums[ROWS][TILE];
  int count = 0;
  for (int64 row = part * ROWS; row < rows && count < ROWS; ++row) index[count++] = row;
  multiply_band(x, index, count, weights, sums);
  for (int i = 0; i < count; ++i)
    for (int n = 0; n < TILE; ++n)
      POINTER(uint16, result)[index[i] * columns + band * TILE + n] = encode_bf16(sums[i][n]);
}
