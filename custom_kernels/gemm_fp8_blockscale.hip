// Block-scaled FP8 matrix multiplication at few rows: a workgroup takes 16 * BANDS weight rows and PART_ROWS * PARTS
// of the ROWS activation rows; its waves share the COLUMNS columns, so that it reads a weight byte once.
// WEIGHTS_AHEAD, ROWS_AHEAD: see pipeline.h.
#include "bf16.h"
#include "block_scaled.h"

constexpr int WAVES = 256 / WAVE_SIZE;

using Shared = ProductMemory<WAVES, PARTS * PART_ROWS, ROWS_AHEAD>;

// Rows and bands past the end repeat the last one, and are not stored.
DEVICE void gemm_tile(Shared &shared, const QuantizedRows &x, const uint8 *weight, const float *weight_scales,
                      bf16 *result, int bands, int first_row, int first_band) {
  auto row_of = [&](int i) { return first_row + i < ROWS ? first_row + i : ROWS - 1; };
  WeightBand weights[BANDS];
#pragma unroll
  for (int i = 0; i < BANDS; ++i)
    weights[i] = weight_band(weight, weight_scales, COLUMNS, first_band + i < bands ? first_band + i : bands - 1);
  FragmentShare<COLUMNS / FRAGMENT_COLUMNS, WAVES> share = {uniform_wave_id()};
  PartTotals totals[BANDS][PARTS];
  multiply_bands<WEIGHTS_AHEAD>(x, row_of, weights, share, shared.rows, totals);
#pragma unroll
  for (int i = 0; i < BANDS; ++i)
    add_waves<WAVES>(totals[i], shared.totals, [&](int row, int column, float sum) INLINE {
      if (first_row + row < ROWS && first_band + i < bands)
        result[row_major_offset(first_row + row, (first_band + i) * TILE + column, bands * TILE)] = to_bf16(sum);
    });
}

DEVICE void gemm_fp8_blockscale(Workgroup workgroup, Shared &shared, const uint8 *values, const float *scales,
                                const uint8 *weight, const float *weight_scales, bf16 *result, int bands) {
  // With one block of rows, the first is 0 when compiling: addresses of rows then need no registers.
  int first_row = ROWS > PARTS * PART_ROWS ? workgroup.y * PARTS * PART_ROWS : 0;
  gemm_tile(shared, {values, scales, ROWS, COLUMNS}, weight, weight_scales, result, bands, first_row,
            workgroup.x * BANDS);
}
