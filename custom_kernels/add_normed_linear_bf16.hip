// Residual sum of few rows, its RMSNorm, and an unquantised product, by clusters of workgroups on NVIDIA (see
// normed_float_rows.h).
#include "normed_float_rows.h"

using Tile = FloatTile<ROWS, COLUMNS, BANDS, SPLIT, BLOCK, STAGE, AHEAD>;
using Rows = NormedFloatRows<Tile, 2>;

DEVICE void add_normed_linear_bf16(EarlyWorkgroup workgroup, Rows::Shared &shared, const bf16 *x, const bf16 *residual,
                                   const bf16 *norm_weight, const bf16 *weight, float *result, int outputs,
                                   int epsilon) {
  multiply_floats(workgroup, shared, Rows{{{x, residual}, norm_weight, __builtin_bit_cast(float, epsilon)}}, weight,
                  result, outputs);
}
