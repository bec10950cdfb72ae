// One row of the qkv_a output, by two workgroups: RMSNorm and group quantisation of its query columns; RMSNorm of its
// latent columns and rotation of its rope columns, stored as the row's key. Layout: query, latent, rope.
// QUERY_DIM, LATENT_DIM and ROPE_DIM are their columns. ROPE_HALVES: how the rotated columns are paired.
#include "pipeline.h"
#include "rope.h"
#include "row.h"

constexpr int KEY_DIM = LATENT_DIM + ROPE_DIM;

DEVICE void norm_query(RowShared &shared, const bf16 *query, const bf16 *weight, uint8 *values, float *scales, int rows,
                       float epsilon, int index) {
  constexpr int CHUNKS = divide_up(QUERY_DIM, ROW_COLUMNS);
  Row<CHUNKS> row, weights;
  load_row<CHUNKS>(query, QUERY_DIM, row);
  load_row<CHUNKS>(weight, QUERY_DIM, weights);
  float factor = norm_factor<CHUNKS>(row, QUERY_DIM, epsilon, shared);
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    scale_chunk(row[chunk], factor, weights[chunk]);
    quantize_chunk(row[chunk], index, rows, QUERY_DIM, chunk, values, scales);
  }
}

// Eight columns as FP8, rounded to bf16 on the way.
DEVICE void store_key_columns(float (&values)[COLUMNS_PER_LANE], uint8 *target) {
  round_to_bf16(values);
  *(uint32x2 *)target = {to_fp8x4(values[0], values[1], values[2], values[3]),
                         to_fp8x4(values[4], values[5], values[6], values[7])};
}

DEVICE void store_key(RowShared &shared, const bf16 *latent, const bf16 *weight, const float *rope_table,
                      const int64 *position, const int64 *slot, uint8 *cache, float epsilon) {
  constexpr int CHUNKS = divide_up(LATENT_DIM, ROW_COLUMNS);
  // The last lanes also hold the rotated columns.
  int dim = thread_id() * COLUMNS_PER_LANE - (ROW_COLUMNS - ROPE_DIM);
  int64 table_row = *position, key = *slot;
  Row<CHUNKS> row, weights;
  load_row<CHUNKS>(latent, LATENT_DIM, row);
  load_row<CHUNKS>(weight, LATENT_DIM, weights);
  float turned[COLUMNS_PER_LANE] = {};
  if (dim >= 0) load_bf16x8(latent + LATENT_DIM + dim, turned);
  // The table's row, which waits for the position, comes last: the norm is made meanwhile.
  auto rope = load_rope<ROPE_HALVES>(dim, ROPE_DIM, rope_table + table_row * ROPE_DIM);
  schedule_boundary();
  float factor = norm_factor<CHUNKS>(row, LATENT_DIM, epsilon, shared);
  if (key < 0) return;
  uint8 *target = cache + key * KEY_DIM;
#pragma unroll
  for (int chunk = 0; chunk < CHUNKS; ++chunk) {
    scale_chunk(row[chunk], factor, weights[chunk]);
    if (in_row(chunk, LATENT_DIM)) store_key_columns(row[chunk], target + row_column(chunk));
  }
  rotate(turned, dim, ROPE_DIM, rope);
  if (dim >= 0) store_key_columns(turned, target + LATENT_DIM + dim);
}

DEVICE void latent_norms_and_cache(Workgroup workgroup, RowShared &shared, const bf16 *qkv_a, const bf16 *query_weight,
                                   const bf16 *latent_weight, const float *rope_table, const int64 *positions,
                                   uint8 *cache, const int64 *slot_mapping, uint8 *values, float *scales, int rows,
                                   int query_epsilon, int latent_epsilon) {
  int index = workgroup.x;
  const bf16 *row = qkv_a + row_major_offset(index, 0, QUERY_DIM + KEY_DIM);
  if (workgroup.y == 0)
    norm_query(shared, row, query_weight, values, scales, rows, __builtin_bit_cast(float, query_epsilon), index);
  else
    store_key(shared, row + QUERY_DIM, latent_weight, rope_table, positions + index, slot_mapping + index, cache,
              __builtin_bit_cast(float, latent_epsilon));
}
