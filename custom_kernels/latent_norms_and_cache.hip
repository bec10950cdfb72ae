// One row of the qkv_a output, by two workgroups: RMSNorm and group quantisation of its query columns; RMSNorm of its
// latent columns and rotation of its rope columns, stored as the row's key. Layout: query, latent, rope.
// CHUNKS: register chunks of the wider part. ROPE_HALVES: how the rotated columns are paired.
#include "rope.h"
#include "row.h"

DEVICE void norm_query(RowShared &shared, const bf16 *query, const bf16 *weight, uint8 *values, float *scales, int rows,
                       int columns, float epsilon, int index) {
  Row<CHUNKS> row, weights;
  load_row<CHUNKS>(query, columns, row);
  load_row<CHUNKS>(weight, columns, weights);
  float factor = norm_factor<CHUNKS>(row, columns, epsilon, shared);
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    scale_chunk(row[chunk], factor, weights[chunk]);
    quantize_chunk(row[chunk], index, rows, columns, chunk, values, scales);
  }
}

// Eight columns as FP8, rounded to bf16 on the way.
DEVICE void store_key_columns(const float (&values)[COLUMNS_PER_LANE], uint8 *target) {
  uint32x2 packed;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    packed[i] = to_fp8x4(round_to_bf16(values[4 * i]), round_to_bf16(values[4 * i + 1]),
                         round_to_bf16(values[4 * i + 2]), round_to_bf16(values[4 * i + 3]));
  *(uint32x2 *)target = packed;
}

DEVICE void store_key(RowShared &shared, const bf16 *latent, const bf16 *weight, const float *table_row, int64 slot,
                      uint8 *cache, int latent_dim, int rope_dim, float epsilon) {
  Row<CHUNKS> row, weights;
  load_row<CHUNKS>(latent, latent_dim, row);
  load_row<CHUNKS>(weight, latent_dim, weights);
  // The last lanes also hold the rotated columns.
  int dim = thread_id() * COLUMNS_PER_LANE - (ROW_COLUMNS - rope_dim);
  float turned[COLUMNS_PER_LANE] = {};
  if (dim >= 0) load_bf16x8(latent + latent_dim + dim, turned);
  rotate<ROPE_HALVES>(turned, dim, rope_dim, table_row);
  float factor = norm_factor<CHUNKS>(row, latent_dim, epsilon, shared);
  if (slot < 0) return;
  uint8 *key = cache + slot * (latent_dim + rope_dim);
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    scale_chunk(row[chunk], factor, weights[chunk]);
    if (row_column(chunk) < latent_dim) store_key_columns(row[chunk], key + row_column(chunk));
  }
  if (dim >= 0) store_key_columns(turned, key + latent_dim + dim);
}

DEVICE void latent_norms_and_cache(Workgroup workgroup, RowShared &shared, const bf16 *qkv_a, const bf16 *query_weight,
                                   const bf16 *latent_weight, const float *rope_table, const int64 *positions,
                                   uint8 *cache, const int64 *slot_mapping, uint8 *values, float *scales, int rows,
                                   int query_dim, int latent_dim, int rope_dim, int query_epsilon,
                                   int latent_epsilon) {
  int index = workgroup.x;
  const bf16 *row = qkv_a + row_major_offset(index, 0, query_dim + latent_dim + rope_dim);
  if (workgroup.y == 0)
    norm_query(shared, row, query_weight, values, scales, rows, query_dim, __builtin_bit_cast(float, query_epsilon),
               index);
  else
    store_key(shared, row + query_dim, latent_weight, rope_table + positions[index] * rope_dim, slot_mapping[index],
              cache, latent_dim, rope_dim, __builtin_bit_cast(float, latent_epsilon));
}
