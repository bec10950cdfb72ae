// The indexer's keys from the projection to the cache: LayerNorm, rotary embedding, Hadamard rotation, quantisation;
// 16 lanes per row, 16 rows per workgroup.
// ROPE_HALVES: how the rotated columns are paired. PRESHUFFLED: the page's key layout. POWER_OF_TWO: scales are
// rounded up to one.
#include "bf16.h"
#include "float_math.h"
#include "hadamard.h"
#include "indexer_page.h"
#include "rope.h"

constexpr int THREADS = 256;
constexpr int ROWS = THREADS / HEAD_LANES;
constexpr int ROPE_DIM = 64;

DEVICE float sum_of_head(const float (&values)[8]) {
  float sum = values[0];
#pragma unroll
  for (int i = 1; i < 8; ++i) sum += values[i];
  return reduce_lanes<Sum, HEAD_LANES>(sum);
}

DEVICE void layer_norm(float (&values)[8], const float (&weight)[8], const float (&bias)[8], float epsilon) {
  float mean = sum_of_head(values) / INDEXER_HEAD_DIM;
  float squares[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i] -= mean;
    squares[i] = values[i] * values[i];
  }
  float inverse = 1.0f / square_root(sum_of_head(squares) / INDEXER_HEAD_DIM + epsilon);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = values[i] * inverse * weight[i] + bias[i];
}

DEVICE void indexer_k_prepare_and_cache(Workgroup workgroup, const bf16 *k, const bf16 *weight, const bf16 *bias,
                                        const float *rope_table, const int64 *positions, uint8 *cache,
                                        const int64 *slot_mapping, int rows, int epsilon) {
  int row = workgroup.x * ROWS + thread_id() / HEAD_LANES;
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  int read = row < rows ? row : rows - 1;  // no branch around the loads, which are all on their way at once
  int64 position = positions[read], slot = slot_mapping[read];
  float values[8], weights[8], biases[8];
  load_bf16x8(k + row_major_offset(read, dim, INDEXER_HEAD_DIM), values);
  load_bf16x8(weight + dim, weights);
  load_bf16x8(bias + dim, biases);
  auto rope = load_rope<ROPE_HALVES>(dim, ROPE_DIM, rope_table + position * ROPE_DIM);
  layer_norm(values, weights, biases, __builtin_bit_cast(float, epsilon));
  round_to_bf16(values);
  rotate(values, dim, ROPE_DIM, rope);
  round_to_bf16(values);
  hadamard_rotate(values);
  round_to_bf16(values);
  store_key<PRESHUFFLED, POWER_OF_TWO>(values, cache, row < rows ? slot : -1, dim);
}
