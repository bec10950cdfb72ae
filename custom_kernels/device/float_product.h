// A product of few rows with an unquantised weight, on NVIDIA: SPLIT workgroups of a cluster share BANDS bands of 16
// weight rows and BLOCK of the ROWS activation rows, each takes a slice of the COLUMNS columns. That many workgroups fill
// the chip, and each reads little of the activations, which all of them read from the same places of the cache.
//
// Weight and activation rows come through a ring of AHEAD stages of STAGE columns in workgroup memory; the waves share
// the columns of a stage.
//
// Where the rows come from is a type:
//   Memory                                its part of workgroup memory
//   load_first(place, waits)   loads what no op makes; all of it, if there is no op to wait for
//   load(shared, place, waits) loads the rest, or orders copies into the first stages; ends a group of copies for each
//   put(shared)                puts what of the rows is not copied
//   copy(stage, place, index)  orders the copies into stage `index`
//   EXCHANGES                  whether the workgroups of a cluster tell each other something of the rows:
//   expect(shared)             before they have joined the cluster
//   send(shared, place)        when all have, and the rows are there
//   receive(shared)            when the products have been made
//   finish(shared, row, sums)  the sums of row `row` of the block, as they are stored
#pragma once

#include "cluster_sums.h"
#include "grid.h"
#include "half_matrix.h"
#include "layouts.h"
#include "mailbox.h"
#include "row_copies.h"
#include "wave_totals.h"

#if defined(__NVPTX__)
template <int ROWS_, int COLUMNS_, int BANDS_, int SPLIT_, int BLOCK_, int STAGE_, int AHEAD_> struct FloatTile {
  static constexpr int ROWS = ROWS_, COLUMNS = COLUMNS_, BANDS = BANDS_, SPLIT = SPLIT_, BLOCK = BLOCK_;
  static constexpr int STAGE = STAGE_, AHEAD = AHEAD_, THREADS = 256, WAVES = THREADS / WAVE_SIZE;
  static constexpr int OUTPUTS = BANDS * TILE, PARTS = divide_up(BLOCK, PART_ROWS);
  static constexpr int SLICE = COLUMNS / SPLIT, STAGES = divide_up(SLICE, STAGE);
  static constexpr int STEPS = STAGE / HALF_COLUMNS / WAVES;
  static constexpr int COPY_COLUMNS = 16 / sizeof(bf16);
  static constexpr int ROW_COLUMNS = STAGE + COPY_COLUMNS;  // padded: eight rows start in different banks
  static constexpr int VECTORS = OUTPUTS / 4;               // sums of a row, four outputs each
  static_assert(SLICE % HALF_COLUMNS == 0 && STEPS * HALF_COLUMNS * WAVES == STAGE && AHEAD <= STAGES);

  struct Stage {
    bf16 weights[OUTPUTS][ROW_COLUMNS], rows[BLOCK][ROW_COLUMNS];
  };

  static DEVICE bool in_slice(int stage, int column) { return SLICE % STAGE == 0 || stage * STAGE + column < SLICE; }
};

// Which part of the activations a workgroup multiplies: `rows` rows of a block from `first_row` on, and which slice.
struct FloatPlace {
  int first_row, rows, slice;
};

template <typename Tile, typename Rows> struct FloatProductShared {
  union {
    typename Tile::Stage stages[Tile::AHEAD];
    WaveTotals<Tile::WAVES, Tile::PARTS * PART_ROWS> totals[Tile::BANDS];
  };
  ClusterSums<Tile::BLOCK * Tile::VECTORS, Tile::SPLIT> sums;
  [[no_unique_address]] typename Rows::Memory of_rows;
};

// Copies a stage of the first `count` of up to COUNT rows, whose slices begin at `source`. What is not there is not
// copied: it only meets sums that are not stored.
template <typename Tile, int COUNT>
DEVICE void copy_rows(bf16 (&place)[COUNT][Tile::ROW_COLUMNS], const bf16 *source, int count, int stage) {
  constexpr int ROW_COPIES = Tile::STAGE / Tile::COPY_COLUMNS, COPIES = COUNT * ROW_COPIES;
#pragma unroll
  for (int first = 0; first < COPIES; first += Tile::THREADS) {
    int i = first + thread_id(), row = i / ROW_COPIES, column = i % ROW_COPIES * Tile::COPY_COLUMNS;
    if (row >= count || !Tile::in_slice(stage, column)) continue;
    copy_16_bytes(&place[row][column],
                  source + row_major_offset(row, stage * Tile::STAGE + column, Tile::COLUMNS));
  }
}

template <typename Tile>
DEVICE void multiply_stage(const typename Tile::Stage &place, int stage, PartTotals (&totals)[Tile::BANDS][Tile::PARTS]) {
  constexpr int BANDS = Tile::BANDS, PARTS = Tile::PARTS, BLOCK = Tile::BLOCK, COPY_COLUMNS = Tile::COPY_COLUMNS;
#pragma unroll
  for (int step = 0; step < Tile::STEPS; ++step) {
    int column = (step * Tile::WAVES + wave_id()) * HALF_COLUMNS;
    if (!Tile::in_slice(stage, column)) continue;
    HalfFragment weights[BANDS];
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      uint32x4 tile = load_matrices(shared_address(
          &place.weights[band * TILE + lane_id() % TILE][column + lane_id() / TILE * COPY_COLUMNS]));
      weights[band] = {{{tile[0], tile[2]}, {tile[1], tile[3]}}};
    }
#pragma unroll
    for (int part = 0; part < PARTS; part += 2) {
      int row = part * PART_ROWS + lane_id() / TILE * PART_ROWS + lane_id() % PART_ROWS;
      uint32x4 rows = load_matrices(shared_address(
          &place.rows[row < BLOCK ? row : BLOCK - 1][column + lane_id() / PART_ROWS % 2 * COPY_COLUMNS]));
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        multiply_part_bf16(weights[band], uint32x2{rows[0], rows[1]}, totals[band][part].element);
        if (part + 1 < PARTS)
          multiply_part_bf16(weights[band], uint32x2{rows[2], rows[3]}, totals[band][part + 1].element);
      }
    }
  }
}

template <typename Tile, typename Rows>
DEVICE void multiply_floats(EarlyWorkgroup workgroup, FloatProductShared<Tile, Rows> &shared, Rows rows,
                            const bf16 *weight, float *result, int outputs) {
  constexpr int BANDS = Tile::BANDS, SPLIT = Tile::SPLIT, BLOCK = Tile::BLOCK, STAGES = Tile::STAGES;
  constexpr int AHEAD = Tile::AHEAD, THREADS = Tile::THREADS, VECTORS = Tile::VECTORS;
  static_assert(SPLIT > 1 || !Rows::EXCHANGES);
  int slice = workgroup.x % SPLIT, first_output = workgroup.x / SPLIT * Tile::OUTPUTS;
  int first_row = workgroup.y * BLOCK;
  int here = outputs - first_output < Tile::OUTPUTS ? outputs - first_output : Tile::OUTPUTS;
  FloatPlace place = {first_row, Tile::ROWS % BLOCK == 0 || Tile::ROWS - first_row > BLOCK ? BLOCK : Tile::ROWS - first_row,
                      slice};
  weight += row_major_offset(first_output, slice * Tile::SLICE, Tile::COLUMNS);
  rows.load_first(place, workgroup.waits());
#pragma unroll
  for (int stage = 0; stage < AHEAD; ++stage) copy_rows<Tile>(shared.stages[stage].weights, weight, here, stage);
  rows.expect(shared);
  if constexpr (SPLIT > 1) join_cluster(shared.sums, slice);
  workgroup.await_inputs();
  rows.load(shared, place, workgroup.waits());
  rows.put(shared);
  PartTotals totals[BANDS][Tile::PARTS];
#pragma unroll 4
  for (int stage = 0; stage < STAGES; ++stage) {
    await_copies<AHEAD - 1>();
    barrier();
    if constexpr (Rows::EXCHANGES)
      if (stage == 0) {
        await_cluster();
        rows.send(shared, place);
      }
    auto &held = shared.stages[stage % AHEAD];
    multiply_stage<Tile>(held, stage, totals);
    if (stage + AHEAD < STAGES) {
      barrier();
      copy_rows<Tile>(held.weights, weight, here, stage + AHEAD);
      rows.copy(held, place, stage + AHEAD);
    }
    end_copies();
  }
  barrier();  // the last stages have been read
#pragma unroll
  for (int band = 0; band < BANDS; ++band) keep_totals(totals[band], shared.totals[band]);
  barrier();
  auto store = [&](int i, float4 sum) INLINE {
    int row = i / VECTORS, output = i % VECTORS * 4;
    float4 finished = rows.finish(shared, row, sum);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (row < place.rows && output + j < here)
        store_or_post(workgroup, result + row_major_offset(first_row + row, first_output + output + j, outputs),
                      float(finished[j]));
  };
  if constexpr (SPLIT > 1 && !Rows::EXCHANGES) await_cluster();
  for (int i = thread_id(); i < BLOCK * VECTORS; i += THREADS) {
    int output = i % VECTORS * 4;
    float4 sum = sum_of_waves(shared.totals[output / TILE], i / VECTORS, output % TILE);
    if constexpr (SPLIT > 1) send_term(shared.sums, slice, slice, i, sum);
    else store(i, sum);
  }
  if constexpr (SPLIT > 1) {
    rows.receive(shared);
    await_terms(shared.sums);
    for (int i = thread_id(); i < shared.sums.count(slice); i += THREADS)
      store(shared.sums.first(slice) + i, sum_of_terms(shared.sums, i));
  }
}
#endif
