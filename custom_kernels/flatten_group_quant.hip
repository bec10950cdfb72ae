// Group quantisation of rows whose heads already lie side by side; a workgroup takes ROW_COLUMNS of one row.
#include "row.h"

DEVICE void quantize_part(const bf16 *x, uint8 *values, float *scales, int rows, int columns, int index,
                          int part) {
  int column = part * ROW_COLUMNS + row_column(0);
  bool inside = column < columns;
  int64 first = row_major_offset(index, column, columns);
  float numbers[COLUMNS_PER_LANE] = {};
  if (inside) load_bf16x8(x + first, numbers);
  quantize_group(numbers, values + first, scales + group_major_scale_offset(index, column / GROUP, rows),
                 inside);
}

DEVICE void flatten_group_quant(Workgroup workgroup, const bf16 *x, uint8 *values, float *scales, int rows,
                                int columns) {
  quantize_part(x, values, scales, rows, columns, workgroup.x, workgroup.y);
}
