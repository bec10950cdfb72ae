// silu(gate) * up, rounded to bf16, then group-quantised; a workgroup takes ROW_COLUMNS of one row.
#include "row.h"
#include "silu.h"

DEVICE void activate_part(const bf16 *x, uint8 *values, float *scales, int rows, int columns, int index,
                          int part) {
  int column = part * ROW_COLUMNS + row_column(0);
  bool inside = column < columns;
  const bf16 *row = x + row_major_offset(index, 0, 2 * columns);
  float gate[COLUMNS_PER_LANE] = {}, up[COLUMNS_PER_LANE] = {};
  if (inside) {
    load_bf16x8(row + column, gate);
    load_bf16x8(row + columns + column, up);
  }
#pragma unroll
  for (int i = 0; i < COLUMNS_PER_LANE; ++i) gate[i] = from_bf16(silu_mul(gate[i], up[i]));
  quantize_group(gate, values + row_major_offset(index, column, columns),
                 scales + group_major_scale_offset(index, column / GROUP, rows), inside);
}

DEVICE void silu_mul_group_quant(Workgroup workgroup, const bf16 *x, uint8 *values, float *scales, int rows,
                                 int columns) {
  activate_part(x, values, scales, rows, columns, workgroup.x, workgroup.y);
}
