// Block-scaled FP8 matrix multiplication at few rows: a workgroup takes 16 weight rows and up to
// 16 * ROW_TILES activation rows; its WAVES waves share the columns, so that it reads every weight byte once.
#include "bf16.h"
#include "block_scaled.h"

using Shared = WaveSums<ROW_TILES, WAVES>;

DEVICE void gemm_tile(Shared &shared, const QuantizedRows &x, const WeightBand &weight, bf16 *result, int result_columns,
                      int first_row, int first_column) {
  // Rows past the end repeat the last one, and are not stored.
  auto row_of = [&](int i) { return first_row + i < x.rows ? first_row + i : x.rows - 1; };
  Accumulator totals[ROW_TILES];
  multiply_groups(x, row_of, ROW_TILES, weight, uniform_wave_id(), WAVES, totals);
  sum_waves<ROW_TILES, WAVES>(totals, shared, [&](int row, int column, float sum) {
    if (first_row + row < x.rows)
      result[row_major_offset(first_row + row, first_column + column, result_columns)] = to_bf16(sum);
  });
}

DEVICE void gemm_fp8_blockscale(Workgroup workgroup, Shared &shared, const uint8 *values, const float *scales, const uint8 *weight,
                                const float *weight_scales, bf16 *result, int rows, int bands, int columns) {
  int band = workgroup.x;
  WeightBand weights = weight_band(weight, weight_scales, 0, bands, columns, band);
  gemm_tile(shared, {values, scales, rows, columns}, weights, result, bands * TILE, workgroup.y * ROW_TILES * TILE,
            band * TILE);
}
