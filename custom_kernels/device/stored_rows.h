// The rows of a product by warpgroups that are quantised already: `values` [ROWS, COLUMNS] and group-major `scales`.
#pragma once

#include "warpgroup_product.h"

#if defined(__NVPTX__)
template <typename Tile> struct StoredRows {
  struct Memory {};
  using Shared = WarpgroupProductShared<Tile, StoredRows>;
  static constexpr int ROWS = Tile::ROWS, GROUPS = Tile::GROUPS, THREADS = Tile::THREADS;
  static constexpr int OWN_SCALES = divide_up(GROUPS * ROWS, THREADS);
  const uint8 *values;
  const float *scales;
  float row_scales[OWN_SCALES];

  MEMBER void load_early(int first_group) {}

  // Neighbouring lanes copy from neighbouring places, and to all banks. Scales would wait behind the copies.
  MEMBER void load(Shared &shared, int first_group) {
    const float *own = scales + group_major_scale_offset(0, first_group, ROWS);
#pragma unroll
    for (int k = 0; k < OWN_SCALES; ++k) {
      int i = k * THREADS + thread_id();
      if (i < GROUPS * ROWS) row_scales[k] = own[i];
    }
    constexpr int GROUP_COPIES = Tile::UNIT_ROWS * COLUMN_TILES, COPIES = Tile::STAGE_GROUPS * GROUP_COPIES;
    const uint8 *slice = values + first_group * GROUP;
#pragma unroll
    for (int stage = 0; stage < Tile::STAGES; ++stage) {
#pragma unroll
      for (int first = 0; first < COPIES; first += THREADS) {
        int index = first + thread_id(), group = stage * Tile::STAGE_GROUPS + index / GROUP_COPIES;
        int row = index % GROUP_COPIES / COLUMN_TILES, tile = index % COLUMN_TILES;
        if (index < COPIES && group < GROUPS && row < ROWS)
          copy_16_bytes(&shared.rows[group].piece(row, tile),
                        slice + row_major_offset(row, group * GROUP + tile * TILE, Tile::COLUMNS));
      }
      end_copies();
    }
  }

  MEMBER void put(Shared &shared, int first_group, bool met) {
    if (!met) barrier();  // for the weight's scales
#pragma unroll
    for (int k = 0; k < OWN_SCALES; ++k) {
      int i = k * THREADS + thread_id();
      if (i < GROUPS * ROWS) shared.scales[i / ROWS][i % ROWS] = shared.weight_scales[i / ROWS] * row_scales[k];
    }
  }

  MEMBER void await_stage(int stage) {
    if (stage == Tile::STAGES - 1) await_copies<0>();
    else await_copies<1>();
  }

  static constexpr int UNDER_WAY = Tile::PARTS == 1 ? 1 : 2;
  static constexpr bool EXCHANGES = false;
  MEMBER void expect(Shared &shared) {}
  MEMBER void send(Shared &shared, int slice) {}
  MEMBER void receive(Shared &shared) {}
  MEMBER float4 finish(float4 sums, int index) { return sums; }
};
#endif
