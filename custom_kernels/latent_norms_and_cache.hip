// ROWS_EACH rows of the qkv_a output, by two workgroups: RMSNorm and group quantisation of their query columns; RMSNorm
// of their latent columns and rotation of their rope columns, stored as the rows' keys. Layout: query, latent, rope.
// QUERY_DIM, LATENT_DIM and ROPE_DIM are their columns. ROPE_HALVES: how the rotated columns are paired.
#include "mailbox.h"
#include "pipeline.h"
#include "rope.h"
#include "row.h"

constexpr int KEY_DIM = LATENT_DIM + ROPE_DIM;

struct Shared {
  RowShared rows[ROWS_EACH];
};

// Row `i` of the workgroup whose first one is `first`; rows past the end repeat the last one.
DEVICE int row_at(int first, int i, int rows) { return first + i < rows ? first + i : rows - 1; }

// When they have been made, the eight columns from `column` on of each of the workgroup's rows of the qkv_a output, the
// first of which is `first`; `values` stay what they are unless the columns `exist`.
DEVICE void read_columns(const EarlyWorkgroup &workgroup, bf16 *qkv_a, int first, int rows, int column, bool exist,
                         float (&values)[ROWS_EACH][COLUMNS_PER_LANE]) {
  if (!exist) return;
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    bf16 *place = qkv_a + row_major_offset(row_at(first, i, rows), column, QUERY_DIM + KEY_DIM);
    if (workgroup.takes()) take_bf16x8(place, values[i]);
    else load_bf16x8(place, values[i]);
  }
}

// The same of the COUNT chunks of the `columns` columns from `column` on.
template <int COUNT>
DEVICE void read_rows(const EarlyWorkgroup &workgroup, bf16 *qkv_a, int first, int rows, int column, int columns,
                      Row<COUNT> (&row)[ROWS_EACH]) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) {
    float values[ROWS_EACH][COLUMNS_PER_LANE] = {};
    read_columns(workgroup, qkv_a, first, rows, column + row_column(chunk), in_row(chunk, columns), values);
#pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i)
#pragma unroll
      for (int k = 0; k < COLUMNS_PER_LANE; ++k) row[i][chunk][k] = values[i][k];
  }
}

DEVICE void norm_query(const EarlyWorkgroup &workgroup, Shared &shared, bf16 *qkv_a, const bf16 *weight, uint8 *values,
                       float *scales, int rows, float epsilon, int first) {
  constexpr int CHUNKS = divide_up(QUERY_DIM, ROW_COLUMNS);
  Row<CHUNKS> row[ROWS_EACH], weights;
  load_row<CHUNKS>(weight, QUERY_DIM, weights);
  workgroup.await_inputs();
  read_rows(workgroup, qkv_a, first, rows, 0, QUERY_DIM, row);
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

DEVICE void store_key(const EarlyWorkgroup &workgroup, Shared &shared, bf16 *qkv_a, const bf16 *weight,
                      const float *rope_table, const int64 *positions, const int64 *slots, uint8 *cache, float epsilon,
                      int rows, int first) {
  constexpr int CHUNKS = divide_up(LATENT_DIM, ROW_COLUMNS);
  // The last lanes also hold the rotated columns.
  int dim = thread_id() * COLUMNS_PER_LANE - (ROW_COLUMNS - ROPE_DIM);
  int64 table_row[ROWS_EACH], key[ROWS_EACH];
  Row<CHUNKS> row[ROWS_EACH], weights;
  float turned[ROWS_EACH][COLUMNS_PER_LANE] = {};
#pragma unroll
  for (int i = 0; i < ROWS_EACH; ++i) {
    int index = row_at(first, i, rows);
    table_row[i] = positions[index];
    key[i] = slots[index];
  }
  load_row<CHUNKS>(weight, LATENT_DIM, weights);
  RopeColumns<ROPE_HALVES> rope[ROWS_EACH];
  auto load_ropes = [&]() INLINE {
#pragma unroll
    for (int i = 0; i < ROWS_EACH; ++i)
      rope[i] = load_rope<ROPE_HALVES>(dim, ROPE_DIM, rope_table + table_row[i] * ROPE_DIM);
    schedule_boundary();
  };
  // Where nothing is waited for, the table's rows come last, since they wait for the positions: the norms are made
  // meanwhile.
  if (workgroup.waits()) load_ropes();
  workgroup.await_inputs();
  read_rows(workgroup, qkv_a, first, rows, QUERY_DIM, LATENT_DIM, row);
  read_columns(workgroup, qkv_a, first, rows, QUERY_DIM + LATENT_DIM + dim, dim >= 0, turned);
  if (!workgroup.waits()) load_ropes();
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

DEVICE void latent_norms_and_cache(EarlyWorkgroup workgroup, Shared &shared, bf16 *qkv_a, const bf16 *query_weight,
                                   const bf16 *latent_weight, const float *rope_table, const int64 *positions,
                                   uint8 *cache, const int64 *slot_mapping, uint8 *values, float *scales, int rows,
                                   int query_epsilon, int latent_epsilon) {
  int first = workgroup.x * ROWS_EACH;
  if (workgroup.y == 0)
    norm_query(workgroup, shared, qkv_a, query_weight, values, scales, rows, __builtin_bit_cast(float, query_epsilon), first);
  else
    store_key(workgroup, shared, qkv_a, latent_weight, rope_table, positions, slot_mapping, cache,
              __builtin_bit_cast(float, latent_epsilon), rows, first);
}
