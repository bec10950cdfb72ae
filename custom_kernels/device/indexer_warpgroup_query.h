// How a row's query comes into workgroup memory, where warpgroups multiply it: copied if another op has made it, else
// made by all threads of the workgroup.
#pragma once

#include "indexer_query.h"
#include "warpgroup_matrix.h"

#if defined(__NVPTX__)
// A row's query and the weights of its heads. Made by lanes that have a row's tiles next to each other, it is padded.
// To go on with another row takes a workgroup as long as it takes to score WORTH_PAGES, as measured on an H200.
template <typename Query, int HEADS> struct WarpgroupQuery {
  static constexpr int WORTH_PAGES = HEADS / 8;
  RightRows<HEADS, 1> rows;
  alignas(16) float rope[INDEXER_ROPE_DIM];  // the rope table's row
  float weights[HEADS];
};
template <int HEADS> struct WarpgroupQuery<PreparedQuery, HEADS> {
  static constexpr int WORTH_PAGES = 2;
  RightRows<HEADS> rows;
  float weights[HEADS];
};

// What is known of all rows before any of them is loaded: their positions, if their queries are made.
template <typename Query, int ROWS> struct KnownRows {
  int64 positions[ROWS];
};
template <int ROWS> struct KnownRows<PreparedQuery, ROWS> {};

template <int ROWS> DEVICE void learn_row(const PreparedQuery &in, int row, KnownRows<PreparedQuery, ROWS> &known) {}
template <bool HALVES, int ROWS>
DEVICE void learn_row(const RawQuery<HALVES> &in, int row, KnownRows<RawQuery<HALVES>, ROWS> &known) {
  known.positions[row] = in.positions[row];
}

// A row's query on its way to workgroup memory: `load_early`, which reads what no other op makes, `load`, `store_early`
// and behind a barrier `store`, with all threads. The row is row_of(page).
template <typename Query, int HEADS, int THREADS> struct NextQuery;

template <int HEADS, int THREADS> struct NextQuery<PreparedQuery, HEADS, THREADS> {
  RightCodes<HEADS, THREADS> codes;
  float weight;

  template <int ROWS, typename RowOf>
  MEMBER void load_early(const PreparedQuery &in, const KnownRows<PreparedQuery, ROWS> &known, RowOf row_of, int page) {
  }

  template <typename RowOf>
  MEMBER void load(const PreparedQuery &in, RowOf row_of, int page) {
    int row = row_of(page);
    load_right_codes(in.codes + row_major_offset(row, 0, HEADS * INDEXER_HEAD_DIM), codes);
    if (thread_id() < HEADS) weight = in.weights[row_major_offset(row, thread_id(), HEADS)];
  }

  MEMBER void store_early(WarpgroupQuery<PreparedQuery, HEADS> &query) const {}

  MEMBER void store(const PreparedQuery &in, WarpgroupQuery<PreparedQuery, HEADS> &query) const {
    store_right_rows(codes, query.rows);
    if (thread_id() < HEADS) query.weights[thread_id()] = weight;
  }
};

// The threads make some heads in each turn; what they need is loaded for all turns together. Of a head's lanes, one for
// each turn has the gate.
template <bool HALVES, int HEADS, int THREADS> struct NextQuery<RawQuery<HALVES>, HEADS, THREADS> {
  static constexpr int TURN_HEADS = THREADS / HEAD_LANES, TURNS = HEADS / TURN_HEADS;
  static_assert(TURNS * TURN_HEADS == HEADS && TURNS <= HEAD_LANES);
  float rope;
  uint32x4 columns[TURNS];
  float gate;
  int row;

  template <int ROWS, typename RowOf>
  MEMBER void load_early(const RawQuery<HALVES> &in, const KnownRows<RawQuery<HALVES>, ROWS> &known, RowOf row_of,
                         int page) {
    row = row_of(page);
    if (thread_id() < INDEXER_ROPE_DIM)
      rope = in.rope_table[row_major_offset(known.positions[row], thread_id(), INDEXER_ROPE_DIM)];
  }

  template <typename RowOf>
  MEMBER void load(const RawQuery<HALVES> &in, RowOf, int) {
#pragma unroll
    for (int turn = 0; turn < TURNS; ++turn) {
      int64 head = row_major_offset(row, head_in(turn), HEADS);
      columns[turn] = *(const uint32x4 *)(in.q + row_major_offset(head, column_of(thread_id()), INDEXER_HEAD_DIM));
    }
    if (own_turn() < TURNS) gate = in.gates[row_major_offset(row, head_in(own_turn()), HEADS)];
  }

  MEMBER void store_early(WarpgroupQuery<RawQuery<HALVES>, HEADS> &query) const {
    if (thread_id() < INDEXER_ROPE_DIM) query.rope[thread_id()] = rope;
  }

  MEMBER void store(const RawQuery<HALVES> &in, WarpgroupQuery<RawQuery<HALVES>, HEADS> &query) const {
    int column = column_of(thread_id());
    auto columns_rope = load_rope<HALVES>(column, INDEXER_ROPE_DIM, query.rope);
    float own_scale;
#pragma unroll
    for (int turn = 0; turn < TURNS; ++turn) {
      float values[8];
      uint32x2 codes;
      unpack_bf16x8(columns[turn], values);
      float scale = prepare_head(values, column, columns_rope, codes);
      if (own_turn() == turn) own_scale = scale;
      store_right_columns(codes, head_in(turn), column, query.rows);
    }
    if (own_turn() < TURNS) query.weights[head_in(own_turn())] = weight_of_head(gate, in.gate_scale, own_scale);
    publish_to_engines();
  }

private:
  DEVICE int head_in(int turn) { return turn * TURN_HEADS + head_of(thread_id()); }
  DEVICE int own_turn() { return thread_id() % HEAD_LANES; }
};
#endif
