// The rows of a product by warpgroups that it normalises itself (see normed_slice.h): a group's codes are those of the
// normalised group, since both have the same quotient by their maximum.
#pragma once

#include "normed_slice.h"
#include "warpgroup_product.h"

#if defined(__NVPTX__)
template <typename Tile, int TERMS, int STRIDE> struct NormedRows {
  using Slice = NormedSlice<Tile::ROWS, Tile::COLUMNS, Tile::SPLIT, TERMS, STRIDE, Tile::THREADS>;
  using Memory = typename Slice::Memory;
  using Shared = WarpgroupProductShared<Tile, NormedRows>;
  static constexpr int OWN = Slice::OWN;
  static_assert(Tile::PARTS == 1);

  Slice slice;
  float factors[2];

  MEMBER void load_early(int first_group) { slice.load_weights(first_group); }
  MEMBER void load(Shared &shared, int first_group) { slice.load_rows(first_group); }

  MEMBER void put(Shared &shared, int first_group, bool met) {
    float values[OWN][COLUMNS_PER_LANE], squares[OWN];
    int largest[OWN];
#pragma unroll
    for (int k = 0; k < OWN; ++k) {
      squares[k] = slice.weigh(k, values[k]);
      largest[k] = largest_magnitude(values[k]);
    }
    // All pieces' steps side by side: each waits for the one before.
#pragma unroll
    for (int distance = 1; distance < GROUP_LANES; distance *= 2)
#pragma unroll
      for (int k = 0; k < OWN; ++k) {
        squares[k] += wave_read(squares[k], lane_id() ^ distance);
        largest[k] = Maximum::combine(largest[k], wave_read(largest[k], lane_id() ^ distance));
      }
    // What the floor of a normalised group's scale is before the norm, of rows so small that it matters.
    float smallest = ACTIVATION_SCALE_FLOOR * square_root(slice.epsilon);
    if (!met) barrier();  // for the weight's scales
#pragma unroll
    for (int k = 0; k < OWN; ++k) {
      int group = slice.group(k), row = slice.row(k), lane = thread_id() % GROUP_LANES;
      uint32x2 packed;
      float scale = quantize_columns(values[k], largest[k], smallest, packed);
      ((uint32x2 *)&shared.rows[group].piece(row, lane / 2))[lane % 2] = packed;
      if (lane == 0) {
        shared.of_rows.squares[group][row] = squares[k];
        shared.scales[group][row] = shared.weight_scales[group] * scale;
      }
    }
  }

  MEMBER void await_stage(int stage) {}

  static constexpr int UNDER_WAY = 2;
  static constexpr bool EXCHANGES = true;
  MEMBER void expect(Shared &shared) { expect_values(shared.of_rows.of_slices); }
  MEMBER void send(Shared &shared, int index) { slice.send(shared.of_rows, index); }

  MEMBER void receive(Shared &shared) {
    await_sent(shared.of_rows.of_slices.arrival);
    // A lane stores sums of two rows.
#pragma unroll
    for (int j = 0; j < 2; ++j) factors[j] = slice.factor(shared.of_rows, lane_id() % 4 * 2 + j);
  }

  MEMBER float4 finish(float4 sums, int place) {
    return float4{sums[0] * factors[0], sums[1] * factors[1], sums[2] * factors[0], sums[3] * factors[1]};
  }
};
#endif
