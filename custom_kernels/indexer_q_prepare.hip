// Rotates and quantises the indexer's query and weighs its heads: 16 lanes per head, 16 heads per workgroup.
// ROPE_HALVES: how the rotated columns are paired. HEADS: of a row.
#include "indexer_query.h"

constexpr int THREADS = 256;
constexpr int HEADS_PER_WORKGROUP = THREADS / HEAD_LANES;

DEVICE void indexer_q_prepare(Workgroup workgroup, const bf16 *q, const float *gates, const float *rope_table,
                              const int64 *positions, uint8 *codes, float *weights, int all_heads, int gate_scale) {
  int head = workgroup.x * HEADS_PER_WORKGROUP + head_of(thread_id());  // counted through all rows
  int column = column_of(thread_id());
  int read = head < all_heads ? head : all_heads - 1;  // no branch around the loads
  int64 first = row_major_offset(read, column, INDEXER_HEAD_DIM), position = positions[read / HEADS];
  float gate = gates[read], values[8];
  load_bf16x8(q + first, values);
  auto rope = load_query_rope<ROPE_HALVES>(rope_table, position, column);
  uint32x2 packed;
  float scale = prepare_head(values, column, rope, packed);
  if (head >= all_heads) return;
  *(uint32x2 *)(codes + first) = packed;
  if (column == 0) weights[head] = weight_of_head(gate, __builtin_bit_cast(float, gate_scale), scale);
}
