// The indexer's query: where a kernel that scores it finds it, and how one head of it is made. A head is made by 16
// lanes, with 8 consecutive columns in each.
#pragma once

#include "bf16.h"
#include "hadamard.h"
#include "indexer_quant.h"
#include "rope.h"

constexpr int INDEXER_ROPE_DIM = 64;

// The head that a thread helps to make, of those that a workgroup or a wave makes at a time, and its first column.
DEVICE int head_of(int thread) { return thread / HEAD_LANES; }
DEVICE int column_of(int thread) { return thread % HEAD_LANES * HEAD_COLUMNS_PER_LANE; }

// A query that another op has made: FP8 [rows, heads, 128], and the heads' weights [rows, heads].
struct PreparedQuery {
  const uint8 *codes;
  const float *weights;
};

// A query that is still to be made: bf16 [rows, heads, 128], the heads' gates [rows, heads], and the rows' positions.
template <bool HALVES> struct RawQuery {
  const bf16 *q;
  const float *gates, *rope_table;
  const int64 *positions;
  float gate_scale;
};

// Of the row at `position`, for the columns from `column` on.
template <bool HALVES>
DEVICE RopeColumns<HALVES> load_query_rope(const float *rope_table, int64 position, int column) {
  return load_rope<HALVES>(column, INDEXER_ROPE_DIM, rope_table + position * INDEXER_ROPE_DIM);
}

// Rotates and quantises a head, of which the lane holds the columns from `column` on; returns its scale in all lanes.
// All lanes of the wave must call.
template <bool HALVES>
DEVICE float prepare_head(float (&values)[8], int column, const RopeColumns<HALVES> &rope, uint32x2 &codes) {
  rotate(values, column, INDEXER_ROPE_DIM, rope);
  round_to_bf16(values);
  hadamard_rotate(values);
  round_to_bf16(values);
  return quantize_head<true>(values, FP8_INDEXER_QUERY_MAXIMUM, codes);
}

// The weight of a head with `scale`.
DEVICE float weight_of_head(float gate, float gate_scale, float scale) {
  return gate * gate_scale * scale * HADAMARD_SCALE;
}
