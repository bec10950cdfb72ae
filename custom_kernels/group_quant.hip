// Group quantisation of rows; a workgroup takes ROW_COLUMNS of their elements, be they of one row or of several.
// ROWS and COLUMNS are compile-time constants.
#include "row.h"

DEVICE void group_quant(Workgroup workgroup, const bf16 *x, uint8 *values, float *scales) {
  int64 first = int64(workgroup.x) * ROW_COLUMNS + row_column(0), row = first / COLUMNS;
  bool inside = row < ROWS;
  float columns[COLUMNS_PER_LANE] = {};
  if (inside) load_bf16x8(x + first, columns);
  quantize_group(columns, values + first, scales + group_major_scale_offset(row, first % COLUMNS / GROUP, ROWS),
                 inside);
}
