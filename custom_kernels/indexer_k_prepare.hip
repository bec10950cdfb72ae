// LayerNorm, rotary embedding and Hadamard rotation of the indexer's key: 16 lanes per row, four rows per
// workgroup. ROPE_HALVES: how the rotated columns are paired.
#include "bf16.h"
#include "float_math.h"
#include "hadamard.h"
#include "indexer_quant.h"
#include "rope.h"

constexpr int THREADS = 64;
constexpr int ROWS = THREADS / HEAD_LANES;
constexpr int ROPE_DIM = 64;

DEVICE float sum_of_head(const float (&values)[8]) {
  float sum = values[0];
#pragma unroll
  for (int i = 1; i < 8; ++i) sum += values[i];
  return reduce_lanes<Sum, HEAD_LANES>(sum);
}

DEVICE void layer_norm(float (&values)[8], const bf16 *weight, const bf16 *bias, float epsilon) {
  float mean = sum_of_head(values) / INDEXER_HEAD_DIM;
  float squares[8], weights[8], biases[8];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i] -= mean;
    squares[i] = values[i] * values[i];
  }
  float inverse = 1.0f / square_root(sum_of_head(squares) / INDEXER_HEAD_DIM + epsilon);
  load_bf16x8(weight, weights);
  load_bf16x8(bias, biases);
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = round_to_bf16(values[i] * inverse * weights[i] + biases[i]);
}

DEVICE void prepare_rows(const bf16 *k, const bf16 *weight, const bf16 *bias, const float *rope_table,
                         const int64 *positions, bf16 *prepared, int rows, float epsilon, int tile) {
  int row = tile * ROWS + thread_id() / HEAD_LANES;
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  bool inside = row < rows;
  int64 first = row_major_offset(row, dim, INDEXER_HEAD_DIM);
  float values[8] = {};
  if (inside) load_bf16x8(k + first, values);
  layer_norm(values, weight + dim, bias + dim, epsilon);
  rotate<ROPE_HALVES>(values, dim, ROPE_DIM, rope_table + (inside ? positions[row] * ROPE_DIM : 0));
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] = round_to_bf16(values[i]);
  hadamard_rotate(values);
  if (inside) store_bf16x8(prepared + first, values);
}

DEVICE void indexer_k_prepare(Workgroup workgroup, const bf16 *k, const bf16 *weight, const bf16 *bias,
                              const float *rope_table, const int64 *positions, bf16 *prepared, int rows,
                              int epsilon) {
  prepare_rows(k, weight, bias, rope_table, positions, prepared, rows, __builtin_bit_cast(float, epsilon),
               workgroup.x);
}
