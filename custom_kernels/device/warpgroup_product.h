// A product of few rows with a block-scaled weight by warpgroups (NVIDIA): the SPLIT workgroups of a cluster share BANDS
// bands of 16 weight rows, each takes a slice of the COLUMNS columns.
//
// A wave multiplies a band, four of them together, with the ROWS rows as UNIT_ROWS; the waves of a band take the groups
// of the slice in turn. The copy engine brings each wave the weights of AHEAD groups, before the rows are there; the slice
// of the ROWS rows lies in workgroup memory as a whole, and is multiplied as it arrives. Nothing is converted.
//
// Where the rows come from is a type:
//   Memory                               its part of workgroup memory
//   load_early(first_group)              loads what no op makes; the slice begins at group `first_group`
//   load(shared, first_group)            loads the rows, or orders their copies, when they have been made
//   put(shared, first_group, met)        puts what of the rows is not copied, and the product of each one's scales; the
//                                        weight's are in workgroup memory, to be seen if the threads have met since
//   await_stage(stage)                   the thread's part of the rows of `stage` is in workgroup memory
//   UNDER_WAY                            groups of a wave's weights that are on their way while earlier workgroups still
//                                        make the rows: enough to keep memory busy. What these store and signal comes
//                                        behind all that their compute unit has been promised
//   EXCHANGES                            whether the workgroups of a cluster tell each other something of the rows:
//   expect(shared)                       before they have joined the cluster
//   send(shared, slice)                  when all have, and the rows are there
//   receive(shared)                      when the products have been made
//   finish(sums, index)                  the sums that a lane stores, of place `index` (see product_sums.h)
#pragma once

#include "pipeline.h"
#include "product_sums.h"
#include "row_copies.h"
#include "warpgroup_fp8.h"

#if defined(__NVPTX__)
static constexpr int largest_divisor(int number, int most) {
  return number % most ? largest_divisor(number, most - 1) : most;
}

template <int ROWS_, int COLUMNS_, int BANDS_, int SPLIT_, int AHEAD_, int UNIT_ROWS_> struct WarpgroupTile {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, BANDS = BANDS_, SPLIT = SPLIT_, AHEAD = AHEAD_;
  static constexpr int UNIT_ROWS = UNIT_ROWS_, PARTS = UNIT_ROWS / PART_ROWS;
  static constexpr int THREADS = 256, WAVES = THREADS / WAVE_SIZE, BAND_WAVES = WAVES / BANDS;
  static constexpr int GROUPS = COLUMNS / SPLIT / GROUP, TURNS = GROUPS / BAND_WAVES;
  static constexpr int BAND_BYTES = TILE * GROUP;  // of a group
  // Turns whose products are under way together: as many as there are registers for.
  static constexpr int MOST_TOGETHER = UNIT_ROWS > 16 ? 1 : UNIT_ROWS == 16 && AHEAD < TURNS ? 2 : 4;
  static constexpr int TOGETHER = largest_divisor(TURNS, MOST_TOGETHER < AHEAD ? MOST_TOGETHER : AHEAD);
  // Rows arrive in two stages at most.
  static constexpr int STAGE_TURNS = divide_up(TURNS, 2 * TOGETHER) * TOGETHER;
  static constexpr int STAGES = divide_up(TURNS, STAGE_TURNS), STAGE_GROUPS = STAGE_TURNS * BAND_WAVES;
  static_assert(GROUP == WARPGROUP_COLUMNS);
  static_assert(COLUMNS % (SPLIT * GROUP) == 0 && GROUPS <= THREADS && ROWS <= UNIT_ROWS);
  static_assert(TOGETHER <= AHEAD && AHEAD <= TURNS);  // who waits for a group has ordered it
  static_assert(BANDS * BAND_WAVES == WAVES && BANDS % WARPGROUP_WAVES == 0 && TURNS * BAND_WAVES == GROUPS);
};

// The sums of many rows take the place of the first groups of weights, or of all, when these have been multiplied.
template <typename Weights, typename Sums, int PARTS> struct WeightsAndSums {
  union {
    Weights weights;
    Sums sums;
  };
};
// Those of few do not, so that the cluster is joined at once.
template <typename Weights, typename Sums> struct WeightsAndSums<Weights, Sums, 1> {
  Weights weights;
  Sums sums;
};

template <typename Tile, typename Rows> struct WarpgroupProductShared {
  using Weights = uint8[Tile::AHEAD][Tile::WAVES][Tile::BAND_BYTES];
  using Sums = ProductSums<Tile::BANDS, Tile::PARTS, Tile::SPLIT, Tile::BAND_WAVES>;
  union {
    RowsGroup<Tile::UNIT_ROWS> rows[Tile::GROUPS];
    PairSums<Tile::WAVES, Tile::PARTS> pairs;  // when the rows have been multiplied
  };
  WeightsAndSums<Weights, Sums, Tile::PARTS> memory;
  float scales[Tile::GROUPS][Tile::UNIT_ROWS];  // of a row and the weight
  float weight_scales[Tile::GROUPS];
  Arrival arrivals[Tile::WAVES][Tile::AHEAD];
  [[no_unique_address]] typename Rows::Memory of_rows;
};

template <typename Tile, typename Rows>
DEVICE void multiply_by_warpgroups(EarlyWorkgroup workgroup, WarpgroupProductShared<Tile, Rows> &shared, Rows rows,
                                   const uint8 *weight, const float *weight_scales, bf16 *result, int bands) {
  constexpr int BANDS = Tile::BANDS, SPLIT = Tile::SPLIT, AHEAD = Tile::AHEAD, UNIT_ROWS = Tile::UNIT_ROWS;
  constexpr int WAVES = Tile::WAVES, BAND_WAVES = Tile::BAND_WAVES, BAND_BYTES = Tile::BAND_BYTES;
  constexpr int GROUPS = Tile::GROUPS, TURNS = Tile::TURNS, TOGETHER = Tile::TOGETHER, PARTS = Tile::PARTS;
  constexpr int STAGE_TURNS = Tile::STAGE_TURNS;
  // So long before the end that the workgroups of the cluster need not wait for each other then.
  constexpr bool JOINS_AT_ONCE = PARTS == 1;
  constexpr int SUM_TURNS = divide_up(sizeof(shared.memory.sums), WAVES * BAND_BYTES);
  constexpr int JOIN_TURN = AHEAD < TURNS ? TURNS : divide_up(SUM_TURNS, STAGE_TURNS) * STAGE_TURNS;
  static_assert(SPLIT > 1 || !Rows::EXCHANGES);
  static_assert(JOINS_AT_ONCE || !Rows::EXCHANGES);
  auto &weights = shared.memory.weights;
  auto &sums = shared.memory.sums;
  int slice = workgroup.x % SPLIT, first_band = workgroup.x / SPLIT * BANDS, first_group = slice * GROUPS;
  // Asked for before the weights, behind which it would wait.
  float weight_scale = 0;
  if (thread_id() < GROUPS)
    weight_scale = weight_scales[row_major_scale_offset(first_band * TILE / GROUP, first_group + thread_id(),
                                                        Tile::COLUMNS / GROUP)];
  rows.load_early(first_group);
  schedule_boundary();

  // Bands past the end repeat the last one, and are not stored.
  int wave = wave_id(), own_band = wave % BANDS, own_group = wave / BANDS;
  int band = first_band + own_band < bands ? first_band + own_band : bands - 1;
  const uint8 *source =
      weight + tiled_16x16_offset(int64(band) * TILE, (first_group + own_group) * GROUP, Tile::COLUMNS);
  auto &arrivals = shared.arrivals[wave];
  auto order = [&](int turn) INLINE {
    copy_in(weights[turn % AHEAD][wave], source + turn * (BAND_WAVES * BAND_BYTES), arrivals[turn % AHEAD]);
  };
  if (!workgroup.waits()) rows.load(shared, first_group);
  rows.expect(shared);
  if (SPLIT > 1 && JOINS_AT_ONCE) join_cluster(sums, slice);
  if (lane_id() == 0) {
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) start(arrivals[turn]);
    publish_to_engines();
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) {
      if (workgroup.waits() && turn >= Rows::UNDER_WAY) wait_for(arrivals[turn - Rows::UNDER_WAY], 0);
      order(turn);
    }
  }
  schedule_boundary();
  if (thread_id() < GROUPS) shared.weight_scales[thread_id()] = weight_scale;
  workgroup.await_inputs();

  if (workgroup.waits()) rows.load(shared, first_group);
  rows.put(shared, first_group, workgroup.waits());

  WarpgroupSums<UNIT_ROWS> totals = {};
#pragma unroll 1
  for (int turn = 0; turn < TURNS; turn += TOGETHER) {
    if (turn % STAGE_TURNS == 0) {
      rows.await_stage(turn / STAGE_TURNS);
      publish_to_engines();
      barrier();
      if (SPLIT > 1 && !JOINS_AT_ONCE && turn == JOIN_TURN) join_cluster(sums, slice);
      if (Rows::EXCHANGES && turn == 0) {
        await_cluster();
        rows.send(shared, slice);
      }
    }
    LeftRows left[TOGETHER];
    WarpgroupSums<UNIT_ROWS> products[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) {
      int slot = (turn + k) % AHEAD;
      wait_for(arrivals[slot], (turn + k) / AHEAD);
      load_left_rows(weights[slot][wave], left[k]);
      start_group(left[k], shared.rows[(turn + k) * BAND_WAVES + own_group], products[k]);
    }
    finish_groups();
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) {
      pin(products[k]);
      int group = (turn + k) * BAND_WAVES + own_group;
      if (turn + k + AHEAD < TURNS) {
        wave_barrier();
        if (lane_id() == 0) order(turn + k + AHEAD);
      }
#pragma unroll
      for (int i = 0; i < UNIT_ROWS / 8; ++i) {
        float2 scale = *(const float2 *)&shared.scales[group][8 * i + lane_id() % 4 * 2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int j = 0; j < 2; ++j) totals[i][half][j] += scale[j] * products[k][i][half][j];
      }
    }
  }
  constexpr bool JOINS_LAST = SPLIT > 1 && !JOINS_AT_ONCE && JOIN_TURN >= TURNS;
  constexpr bool IN_PAIRS = ADDS_IN_PAIRS<PARTS, BAND_WAVES>;
  if (JOINS_LAST || IN_PAIRS) barrier();  // the weights and the rows have been read
  if constexpr (JOINS_LAST) join_cluster(sums, slice);
  auto sums_of = [&](int i) INLINE {
    return float4{totals[i][0][0], totals[i][0][1], totals[i][1][0], totals[i][1][1]};
  };
  constexpr int OWN_PARTS = IN_PAIRS ? PARTS / 2 : PARTS;
  float4 terms[OWN_PARTS];
  if constexpr (IN_PAIRS) add_pair<PARTS, WAVES>(shared.pairs, own_group, sums_of, terms);
  else {
#pragma unroll
    for (int i = 0; i < PARTS; ++i) terms[i] = sums_of(i);
  }
  if (SPLIT > 1 && !Rows::EXCHANGES) await_cluster();
  auto store = [&](int outputs, int index, float4 sum) INLINE {
    store_sums<Tile::ROWS, PARTS>(workgroup, result, outputs, first_band * TILE, index, rows.finish(sum, index));
  };
  int first_part = own_band * PARTS + (IN_PAIRS ? own_group * OWN_PARTS : 0);
  int term = IN_PAIRS ? slice : slice * BAND_WAVES + own_group;
  add_products(sums, slice, first_part, term, terms, bands * TILE, [&] INLINE { rows.receive(shared); }, store);
}
#endif
