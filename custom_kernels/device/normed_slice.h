// What a workgroup of a product makes of rows that RMSNorm makes, of the sum of TERMS matrices with STRIDE columns each:
// a slice of the COLUMNS columns, the SPLIT workgroups of its cluster the others (NVIDIA).
//
// The slice is weighed before anybody knows how large the rows are. The slices' sums of squares meet while the products
// are made, and a row's factor is applied to its sums.
#pragma once

#include "cluster_sums.h"
#include "float_math.h"
#include "group_quant.h"
#include "pipeline.h"
#include "weighed_columns.h"

#if defined(__NVPTX__)
template <int ROWS, int COLUMNS, int SPLIT, int TERMS, int STRIDE, int THREADS> struct NormedSlice {
  static constexpr int GROUPS = COLUMNS / SPLIT / GROUP;
  // Teams of lanes that hold a group of a row, a piece; and how many pieces each takes.
  static constexpr int TEAMS = THREADS / GROUP_LANES, PIECES = GROUPS * ROWS, OWN = divide_up(PIECES, TEAMS);
  static_assert(COLUMNS % (SPLIT * GROUP) == 0 && ROWS * SPLIT <= THREADS);

  struct Memory {
    float squares[GROUPS][ROWS];  // of this slice
    ClusterValues<ROWS, SPLIT> of_slices;
  };

  const bf16 *terms[TERMS];
  const bf16 *norm_weight;
  float epsilon;
  uint32x4 loaded[OWN][TERMS], weights[OWN];

  // Piece `k` of the lane's team, past the end the last one again: its row, its group of the slice, and the lane's first
  // column of that.
  static MEMBER int piece(int k) {
    int i = k * TEAMS + thread_id() / GROUP_LANES;
    return PIECES % TEAMS == 0 || i < PIECES ? i : PIECES - 1;
  }
  static MEMBER int row(int k) { return piece(k) % ROWS; }
  static MEMBER int group(int k) { return piece(k) / ROWS; }
  static MEMBER int column() { return thread_id() % GROUP_LANES * COLUMNS_PER_LANE; }

  // The slice begins at group `first_group` of the rows.
  MEMBER void load_weights(int first_group) {
#pragma unroll
    for (int k = 0; k < OWN; ++k)
      weights[k] = *(const uint32x4 *)(norm_weight + (first_group + group(k)) * GROUP + column());
  }

  MEMBER void load_rows(int first_group) {
#pragma unroll
    for (int k = 0; k < OWN; ++k)
#pragma unroll
      for (int term = 0; term < TERMS; ++term)
        loaded[k][term] = *(const uint32x4 *)(terms[term] + row_major_offset(row(k), (first_group + group(k)) * GROUP +
                                                                             column(), STRIDE));
    schedule_boundary();
  }

  // Piece `k` times the norm's weights, and the lane's share of its sum of squares.
  MEMBER float weigh(int k, float (&values)[COLUMNS_PER_LANE]) const {
    return weigh_columns(loaded[k], weights[k], values);
  }

  // Tells the cluster this slice's sums of squares. It has met, and so have all threads since they stored those.
  static MEMBER void send(Memory &memory, int slice) {
    if (thread_id() >= ROWS * SPLIT) return;
    int row = thread_id() % ROWS;
    float sum = memory.squares[0][row];
#pragma unroll
    for (int group = 1; group < GROUPS; ++group) sum += memory.squares[group][row];
    send_value(memory.of_slices, slice, thread_id() / ROWS, row, sum);
  }

  // A row's factor, when all slices have told theirs; past the end the last row's.
  MEMBER float factor(const Memory &memory, int row) const {
    row = row < ROWS ? row : ROWS - 1;
    float sum = 0;
#pragma unroll
    for (int slice = 0; slice < SPLIT; ++slice) sum += memory.of_slices.values[slice][row];
    return 1.0f / square_root(sum * (1.0f / COLUMNS) + epsilon);
  }
};
#endif
