// Residual sum of rows, its RMSNorm, quantisation, and a block-scaled FP8 product, by warpgroups on NVIDIA (see
// normed_rows.h).
#include "normed_rows.h"

using Tile = WarpgroupTile<ROWS, COLUMNS, BANDS, SPLIT, AHEAD, UNIT_ROWS>;
using Rows = NormedRows<Tile, 2, STRIDE>;

DEVICE void add_normed_gemm_fp8_blockscale(EarlyWorkgroup workgroup, Rows::Shared &shared, const bf16 *x,
                                           const bf16 *residual, const bf16 *norm_weight, const uint8 *weight,
                                           const float *weight_scales, bf16 *result, int bands, int epsilon) {
  Rows rows = {{{x, residual}, norm_weight, __builtin_bit_cast(float, epsilon)}};
  multiply_by_warpgroups(workgroup, shared, rows, weight, weight_scales, result, bands);
}
