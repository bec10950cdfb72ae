// Rotates and quantises the indexer's query and weighs its heads: 16 lanes per head, 16 heads per workgroup.
// ROPE_HALVES: how the rotated columns are paired. HEADS: of a row.
#include "bf16.h"
#include "hadamard.h"
#include "indexer_quant.h"
#include "rope.h"

constexpr int THREADS = 256;
constexpr int HEADS_PER_WORKGROUP = THREADS / HEAD_LANES;
constexpr int ROPE_DIM = 64;

DEVICE void indexer_q_prepare(Workgroup workgroup, const bf16 *q, const float *gates, const float *rope_table,
                              const int64 *positions, uint8 *codes, float *weights, int all_heads, int gate_scale) {
  int head = workgroup.x * HEADS_PER_WORKGROUP + thread_id() / HEAD_LANES;  // counted through all rows
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  int read = head < all_heads ? head : all_heads - 1;  // no branch around the loads
  int64 first = row_major_offset(read, dim, INDEXER_HEAD_DIM), position = positions[read / HEADS];
  float gate = gates[read], values[8];
  load_bf16x8(q + first, values);
  rotate<ROPE_HALVES>(values, dim, ROPE_DIM, rope_table + position * ROPE_DIM);
  round_to_bf16(values);
  hadamard_rotate(values);
  round_to_bf16(values);
  uint32x2 packed;
  float scale = quantize_head<true>(values, FP8_INDEXER_QUERY_MAXIMUM, packed);
  if (head >= all_heads) return;
  *(uint32x2 *)(codes + first) = packed;
  if (dim == 0) weights[head] = gate * __builtin_bit_cast(float, gate_scale) * scale * HADAMARD_SCALE;
}
