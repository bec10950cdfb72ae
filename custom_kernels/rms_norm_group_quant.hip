// RMSNorm, stored quantised and as bf16: a workgroup reads a whole row, and stores one of its CHUNKS chunks.
#include "row.h"

DEVICE void norm_chunk(RowShared &shared, const bf16 *x, const bf16 *weight, uint8 *values, float *scales, bf16 *normed,
                       int rows, int columns, float epsilon, int index, int chunk) {
  int64 first = row_major_offset(index, 0, columns);
  Row<CHUNKS> row;
  float weights[COLUMNS_PER_LANE], stored[COLUMNS_PER_LANE];
  load_row<CHUNKS>(x + first, columns, row);
  load_chunk(weight, columns, chunk, weights);
  select_chunk<CHUNKS>(row, chunk, stored);
  scale_chunk(stored, norm_factor<CHUNKS>(row, columns, epsilon, shared), weights);
  quantize_chunk(stored, index, rows, columns, chunk, values, scales);
  store_chunk(stored, columns, chunk, normed + first);
}

DEVICE void rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *weight,
                                 uint8 *values, float *scales, bf16 *normed, int rows, int columns, int epsilon) {
  norm_chunk(shared, x, weight, values, scales, normed, rows, columns, __builtin_bit_cast(float, epsilon),
             workgroup.x, workgroup.y);
}
