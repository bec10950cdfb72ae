// The rows of an unquantised product that lie in memory: `x` [ROWS, COLUMNS].
#pragma once

#include "float_product.h"

#if defined(__NVPTX__)
template <typename Tile> struct FloatRows {
  struct Memory {};
  using Shared = FloatProductShared<Tile, FloatRows>;
  const bf16 *x;

  MEMBER void load_first(FloatPlace place, bool waits) {}

  MEMBER void load(Shared &shared, FloatPlace place, bool waits) {
#pragma unroll
    for (int stage = 0; stage < Tile::AHEAD; ++stage) {
      copy(shared.stages[stage], place, stage);
      end_copies();
    }
  }

  MEMBER void put(Shared &shared) {}

  MEMBER void copy(typename Tile::Stage &stage, FloatPlace place, int index) {
    const bf16 *source = x + row_major_offset(place.first_row, place.slice * Tile::SLICE, Tile::COLUMNS);
    copy_rows<Tile>(stage.rows, source, place.rows, index);
  }

  static constexpr bool EXCHANGES = false;
  MEMBER void expect(Shared &shared) {}
  MEMBER void send(Shared &shared, FloatPlace place) {}
  MEMBER void receive(Shared &shared) {}
  MEMBER float4 finish(const Shared &shared, int row, float4 sums) { return sums; }
};
#endif
