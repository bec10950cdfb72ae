// Residual sum and its RMSNorm: a workgroup reads a whole row, and stores one of its CHUNKS chunks.
#include "row.h"

DEVICE void add_and_norm_chunk(RowShared &shared, const bf16 *x, const bf16 *residual, const bf16 *weight,
                               uint8 *values, float *scales, bf16 *normed, bf16 *total, int rows, int columns,
                               float epsilon, int index, int chunk) {
  int64 first = row_major_offset(index, 0, columns);
  Row<CHUNKS> row, other;
  float weights[COLUMNS_PER_LANE], stored[COLUMNS_PER_LANE];
  load_row<CHUNKS>(x + first, columns, row);
  load_row<CHUNKS>(residual + first, columns, other);
  load_chunk(weight, columns, chunk, weights);
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) row[c][i] += other[c][i];
  select_chunk<CHUNKS>(row, chunk, stored);
  store_chunk(stored, columns, chunk, total + first);
  scale_chunk(stored, norm_factor<CHUNKS>(row, columns, epsilon, shared), weights);
  quantize_chunk(stored, index, rows, columns, chunk, values, scales);
  store_chunk(stored, columns, chunk, normed + first);
}

DEVICE void add_rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *residual,
                                     const bf16 *weight, uint8 *values, float *scales, bf16 *normed, bf16 *total,
                                     int rows, int columns, int epsilon) {
  add_and_norm_chunk(shared, x, residual, weight, values, scales, normed, total, rows, columns,
                     __builtin_bit_cast(float, epsilon), workgroup.x, workgroup.y);
}
