// Residual sum and its RMSNorm, one row per workgroup. CHUNKS: register chunks of a row.
#include "row.h"

DEVICE void add_and_norm_row(RowShared &shared, const bf16 *x, const bf16 *residual, const bf16 *weight, uint8 *values,
                             float *scales, bf16 *normed, bf16 *total, int rows, int columns, float epsilon,
                             int index) {
  int64 first = row_major_offset(index, 0, columns);
  Row<CHUNKS> row, other;
  load_row<CHUNKS>(x + first, columns, row);
  load_row<CHUNKS>(residual + first, columns, other);
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) row[chunk][i] += other[chunk][i];
  store_row<CHUNKS>(row, columns, total + first);
  normalize_row<CHUNKS>(row, weight, columns, epsilon, shared);
  quantize_row<CHUNKS>(row, index, rows, columns, values, scales);
  store_row<CHUNKS>(row, columns, normed + first);
}

DEVICE void add_rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *residual, const bf16 *weight,
                                     uint8 *values, float *scales, bf16 *normed, bf16 *total, int rows, int columns,
                                     int epsilon) {
  add_and_norm_row(shared, x, residual, weight, values, scales, normed, total, rows, columns,
                   __builtin_bit_cast(float, epsilon), workgroup.x);
}
