// Rotates and quantises the indexer's query and weighs its heads: 16 lanes per head, four heads per
// workgroup. ROPE_HALVES: how the rotated columns are paired.
#include "bf16.h"
#include "hadamard.h"
#include "indexer_quant.h"
#include "rope.h"

constexpr int THREADS = 64;
constexpr int HEADS = THREADS / HEAD_LANES;
constexpr int ROPE_DIM = 64;

// `index` counts the heads of all rows.
DEVICE void prepare_head(const bf16 *q, const float *gates, const float *rope_table, const int64 *positions,
                         uint8 *values, float *weights, int all_heads, int heads, float gate_scale,
                         int index) {
  bool inside = index < all_heads;
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  int64 first = row_major_offset(index, dim, INDEXER_HEAD_DIM);
  const float *table_row = rope_table + (inside ? positions[index / heads] * ROPE_DIM : 0);
  float columns[8] = {};
  if (inside) load_bf16x8(q + first, columns);
  rotate<ROPE_HALVES>(columns, dim, ROPE_DIM, table_row);
#pragma unroll
  for (int i = 0; i < 8; ++i) columns[i] = round_to_bf16(columns[i]);
  hadamard_rotate(columns);
#pragma unroll
  for (int i = 0; i < 8; ++i) columns[i] = round_to_bf16(columns[i]);
  uint32x2 codes;
  float scale = quantize_head<true>(columns, FP8_INDEXER_QUERY_MAXIMUM, codes);
  if (!inside) return;
  *(uint32x2 *)(values + first) = codes;
  if (dim == 0) weights[index] = gates[index] * gate_scale * scale * HADAMARD_SCALE;
}

DEVICE void indexer_q_prepare(Workgroup workgroup, const bf16 *q, const float *gates, const float *rope_table,
                              const int64 *positions, uint8 *values, float *weights, int all_heads, int heads,
                              int gate_scale) {
  prepare_head(q, gates, rope_table, positions, values, weights, all_heads, heads,
               __builtin_bit_cast(float, gate_scale), workgroup.x * HEADS + thread_id() / HEAD_LANES);
}
