// Unquantised matrix multiplication at few rows by clusters of workgroups, on NVIDIA (see float_product.h).
#include "float_rows.h"

using Tile = FloatTile<ROWS, COLUMNS, BANDS, SPLIT, BLOCK, STAGE, AHEAD>;
using Rows = FloatRows<Tile>;

DEVICE void linear_bf16(EarlyWorkgroup workgroup, Rows::Shared &shared, const bf16 *x, const bf16 *weight, float *result,
                        int outputs) {
  multiply_floats(workgroup, shared, Rows{x}, weight, result, outputs);
}
