// Block-scaled FP8 matrix multiplication at few rows: a workgroup takes 16 weight rows and up to
// 16 * ROW_TILES activation rows; its WAVES waves share the columns, so that it reads every weight byte once.
#include "bf16.h"
#include "block_scaled.h"

DEVICE void gemm_tile(const QuantizedRows &x, const WeightBand &weight, bf16 *result, int result_columns,
                      int first_row, int first_column) {
  // Rows past the end repeat the last one, and are not stored.
  auto row_of = [&](int i) { return first_row + i < x.rows ? first_row + i : x.rows - 1; };
  Accumulator totals[ROW_TILES];
  multiply_groups(x, row_of, ROW_TILES, weight, uniform_wave_id(), WAVES, totals);
  sum_waves<ROW_TILES, WAVES>(totals, [&](int row, int column, float sum) {
    if (first_row + row < x.rows)
      result[row_major_offset(first_row + row, first_column + column, result_columns)] = to_bf16(sum);
  });
}

KERNEL(WAVES *WAVE_SIZE)
void gemm_fp8_blockscale(const uint8 *__restrict__ values, const float *__restrict__ scales,
                    const uint8 *__restrict__ weight, const float *__restrict__ weight_scales,
                    bf16 *__restrict__ result, int rows, int bands, int columns) {
  int band = workgroup_x();
  WeightBand weights = weight_band(weight, weight_scales, 0, bands, columns, band);
  gemm_tile({values, scales, rows, columns}, weights, result, bands * TILE, workgroup_y() * ROW_TILES * TILE,
            band * TILE);
}
