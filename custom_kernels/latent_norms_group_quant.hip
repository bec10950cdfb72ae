// RMSNorms of a row's query columns (quantised) and latent columns (bf16), one workgroup each.
// CHUNKS: register chunks of the wider part.
#include "row.h"

DEVICE void norm_query(RowShared &shared, const bf16 *part, const bf16 *weight, uint8 *values, float *scales, int rows,
                       int columns, float epsilon, int index) {
  Row<CHUNKS> row;
  load_row<CHUNKS>(part, columns, row);
  normalize_row<CHUNKS>(row, weight, columns, epsilon, shared);
  quantize_row<CHUNKS>(row, index, rows, columns, values, scales);
}

DEVICE void norm_latent(RowShared &shared, const bf16 *part, const bf16 *weight, bf16 *latent, int columns, float epsilon) {
  Row<CHUNKS> row;
  load_row<CHUNKS>(part, columns, row);
  normalize_row<CHUNKS>(row, weight, columns, epsilon, shared);
  store_row<CHUNKS>(row, columns, latent);
}

DEVICE void latent_norms_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *qkv_a, const bf16 *query_weight,
                                     const bf16 *latent_weight, uint8 *values, float *scales, bf16 *latent, int rows,
                                     int columns, int query_dim, int latent_dim, int query_epsilon,
                                     int latent_epsilon) {
  int index = workgroup.x;
  const bf16 *row = qkv_a + row_major_offset(index, 0, columns);
  if (workgroup.y == 0)
    norm_query(shared, row, query_weight, values, scales, rows, query_dim, __builtin_bit_cast(float, query_epsilon),
               index);
  else
    norm_latent(shared, row + query_dim, latent_weight, latent + row_major_offset(index, 0, latent_dim), latent_dim,
                __builtin_bit_cast(float, latent_epsilon));
}
