// RMSNorm of one row per workgroup, stored quantised and as bf16. CHUNKS: register chunks of a row.
#include "row.h"

DEVICE void norm_row(RowShared &shared, const bf16 *x, const bf16 *weight, uint8 *values, float *scales, bf16 *normed, int rows,
                     int columns, float epsilon, int index) {
  int64 first = row_major_offset(index, 0, columns);
  Row<CHUNKS> row;
  load_row<CHUNKS>(x + first, columns, row);
  normalize_row<CHUNKS>(row, weight, columns, epsilon, shared);
  quantize_row<CHUNKS>(row, index, rows, columns, values, scales);
  store_row<CHUNKS>(row, columns, normed + first);
}

DEVICE void rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *weight, uint8 *values, float *scales,
                                 bf16 *normed, int rows, int columns, int epsilon) {
  norm_row(shared, x, weight, values, scales, normed, rows, columns, __builtin_bit_cast(float, epsilon),
           workgroup.x);
}
