// The rows of an unquantised product that it normalises itself (see normed_slice.h). They are rounded to bf16 before
// their factor is applied, not after.
#pragma once

#include "float_product.h"
#include "normed_slice.h"

#if defined(__NVPTX__)
template <typename Tile, int TERMS> struct NormedFloatRows {
  using Slice = NormedSlice<Tile::ROWS, Tile::COLUMNS, Tile::SPLIT, TERMS, Tile::COLUMNS, Tile::THREADS>;
  using Memory = typename Slice::Memory;
  using Shared = FloatProductShared<Tile, NormedFloatRows>;
  static constexpr int OWN = Slice::OWN;
  static_assert(Tile::BLOCK == Tile::ROWS && Tile::AHEAD == Tile::STAGES);  // all rows and columns at once

  Slice slice;

  MEMBER void load_first(FloatPlace place, bool waits) {
    slice.load_weights(place.slice * Slice::GROUPS);
    if (!waits) slice.load_rows(place.slice * Slice::GROUPS);
  }

  MEMBER void load(Shared &shared, FloatPlace place, bool waits) {
    if (waits) slice.load_rows(place.slice * Slice::GROUPS);
#pragma unroll
    for (int stage = 0; stage < Tile::AHEAD; ++stage) end_copies();  // of all weights, the first group
  }

  MEMBER void put(Shared &shared) {
    float values[OWN][COLUMNS_PER_LANE], squares[OWN];
#pragma unroll
    for (int k = 0; k < OWN; ++k) squares[k] = slice.weigh(k, values[k]);
    // All pieces' steps side by side: each waits for the one before.
#pragma unroll
    for (int distance = 1; distance < GROUP_LANES; distance *= 2)
#pragma unroll
      for (int k = 0; k < OWN; ++k) squares[k] += wave_read(squares[k], lane_id() ^ distance);
#pragma unroll
    for (int k = 0; k < OWN; ++k) {
      int group = slice.group(k), row = slice.row(k), column = group * GROUP + slice.column();
      store_bf16x8(&shared.stages[column / Tile::STAGE].rows[row][column % Tile::STAGE], values[k]);
      if (slice.column() == 0) shared.of_rows.squares[group][row] = squares[k];
    }
  }

  MEMBER void copy(typename Tile::Stage &stage, FloatPlace place, int index) {}

  static constexpr bool EXCHANGES = true;
  MEMBER void expect(Shared &shared) { expect_values(shared.of_rows.of_slices); }
  MEMBER void send(Shared &shared, FloatPlace place) { slice.send(shared.of_rows, place.slice); }
  MEMBER void receive(Shared &shared) { await_sent(shared.of_rows.of_slices.arrival); }
  MEMBER float4 finish(const Shared &shared, int row, float4 sums) {
    return sums * slice.factor(shared.of_rows, row);
  }
};
#endif
