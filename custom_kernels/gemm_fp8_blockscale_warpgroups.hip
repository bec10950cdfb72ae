// Block-scaled FP8 matrix multiplication by warpgroups, on NVIDIA (see warpgroup_product.h).
#include "stored_rows.h"

using Tile = WarpgroupTile<ROWS, COLUMNS, BANDS, SPLIT, AHEAD, UNIT_ROWS>;
using Rows = StoredRows<Tile>;

DEVICE void gemm_fp8_blockscale(EarlyWorkgroup workgroup, Rows::Shared &shared, const uint8 *values, const float *scales,
                                const uint8 *weight, const float *weight_scales, bf16 *result, int bands) {
  multiply_by_warpgroups(workgroup, shared, Rows{values, scales}, weight, weight_scales, result, bands);
}
