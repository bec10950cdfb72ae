// ROWS_EACH rows of the qkv_a output, by two workgroups: RMSNorm and group quantisation of their query columns; RMSNorm
// of their latent columns and rotation of their rope columns, stored as the rows' keys. Layout: query, latent, rope.
// QUERY_DIM, LATENT_DIM and ROPE_DIM are their columns. ROPE_HALVES: how the rotated columns are paired.
#include "pipeline.h"
#include "rope.h"
#include "row.h"

constexpr int KEY_DIM = LATENT_DIM + ROPE_DIM;

struct Shared {
  RowShared rows[ROWS_EACH];
};

// Row `i` of the workgroup whose first one is `first`; rows past the end repeat the last one.
DEVICE int row_at(int first, int i, int rows) { return first + i < rows ? first + i : rows - 1; }

DEVICE void norm_query(Shared &shared, const bf16 *qkv_a, const bf16 *weight, uint8 *values, float *scales, int rows,
                       float epsilon, int first) {
  constexpr int CHUNKS = divide_up(QUERY_DIM, ROW_COLUMNS);
  Row<CHUNKS> row[ROWS_EACH], weights;
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i)
    load_row<CHUNKS>(qkv_a + row_major_offset(row_at(first, i, rows), 0, QUERY_DIM + KEY_DIM), QUERY_DIM, row[i]);
  load_row<CHUNKS>(weight, QUERY_DIM, weights);
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    float factor = norm_factor<CHUNKS>(row[i], QUERY_DIM, epsilon, shared.rows[i]);
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      scale_chunk(row[i][chunk], factor, weights[chunk]);
      quantize_chunk(row[i][chunk], row_at(first, i, rows), rows, QUERY_DIM, chunk, values, scales);
    }
  }
}

// Eight columns as FP8, rounded to bf16 on the way.
DEVICE void store_key_columns(float (&values)[COLUMNS_PER_LANE], uint8 *target) {
  round_to_bf16(values);
  *(uint32x2 *)target = {to_fp8x4(values[0], values[1], values[2], values[3]),
                         to_fp8x4(values[4], values[5], values[6], values[7])};
}

DEVICE void store_key(Shared &shared, const bf16 *qkv_a, const bf16 *weight, const float *rope_table,
                      const int64 *positions, const int64 *slots, uint8 *cache, float epsilon, int rows, int first) {
  constexpr int CHUNKS = divide_up(LATENT_DIM, ROW_COLUMNS);
  // The last lanes also hold the rotated columns.
  int dim = thread_id() * COLUMNS_PER_LANE - (ROW_COLUMNS - ROPE_DIM);
  const bf16 *latent[ROWS_EACH];
  int64 table_row[ROWS_EACH], key[ROWS_EACH];
  Row<CHUNKS> row[ROWS_EACH], weights;
  float turned[ROWS_EACH][COLUMNS_PER_LANE] = {};
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    int index = row_at(first, i, rows);
    table_row[i] = positions[index];
    key[i] = slots[index];
    latent[i] = qkv_a + row_major_offset(index, QUERY_DIM, QUERY_DIM + KEY_DIM);
    load_row<CHUNKS>(latent[i], LATENT_DIM, row[i]);
  }
  load_row<CHUNKS>(weight, LATENT_DIM, weights);
  // The table's rows, which wait for the positions, come last: the norms are made meanwhile.
  RopeColumns<ROPE_HALVES> rope[ROWS_EACH];
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    if (dim >= 0) load_bf16x8(latent[i] + LATENT_DIM + dim, turned[i]);
    rope[i] = load_rope<ROPE_HALVES>(dim, ROPE_DIM, rope_table + table_row[i] * ROPE_DIM);
  }
  schedule_boundary();
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    float factor = norm_factor<CHUNKS>(row[i], LATENT_DIM, epsilon, shared.rows[i]);
    uint8 *target = cache + key[i] * KEY_DIM;
#pragma unroll
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      scale_chunk(row[i][chunk], factor, weights[chunk]);
      if (in_row(chunk, LATENT_DIM) && key[i] >= 0) store_key_columns(row[i][chunk], target + row_column(chunk));
    }
    rotate(turned[i], dim, ROPE_DIM, rope[i]);
    if (dim >= 0 && key[i] >= 0) store_key_columns(turned[i], target + LATENT_DIM + dim);
  }
}

DEVICE void latent_norms_and_cache(Workgroup workgroup, Shared &shared, const bf16 *qkv_a, const bf16 *query_weight,
                                   const bf16 *latent_weight, const float *rope_table, const int64 *positions,
                                   uint8 *cache, const int64 *slot_mapping, uint8 *values, float *scales, int rows,
                                   int query_epsilon, int latent_epsilon) {
  int first = workgroup.x * ROWS_EACH;
  if (workgroup.y == 0)
    norm_query(shared, qkv_a, query_weight, values, scales, rows, __builtin_bit_cast(float, query_epsilon), first);
  else
    store_key(shared, qkv_a, latent_weight, rope_table, positions, slot_mapping, cache,
              __builtin_bit_cast(float, latent_epsilon), rows, first);
}
