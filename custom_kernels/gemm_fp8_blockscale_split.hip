// Block-scaled FP8 matrix multiplication at few rows, on NVIDIA: SPLIT workgroups of a cluster share BANDS bands of 16
// weight rows, each takes a slice of the COLUMNS columns. That many workgroups fill the chip, and each reads little of
// the activations, which all of them read from the same places of the cache.
//
// The slice of the ROWS rows lies in workgroup memory. The waves of a band take its fragments in turn; each has the
// copies of AHEAD fragments of weights under way.
#include "block_scaled.h"
#include "product_sums.h"
#include "row_copies.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE, BAND_WAVES = WAVES / BANDS;
constexpr int PARTS = divide_up(ROWS, PART_ROWS);
constexpr int SLICE = COLUMNS / SPLIT, SLICE_GROUPS = SLICE / GROUP;
constexpr int STEPS = SLICE / FRAGMENT_COLUMNS / BAND_WAVES;
constexpr int UNROLLED = PARTS <= 2 && STEPS % 4 == 0 ? 4 : 1;  // as many steps as registers allow
constexpr int FRAGMENT_BYTES = TILE * FRAGMENT_COLUMNS;
constexpr int COPY_BYTES = WAVE_SIZE * 16;  // that a wave copies at once
constexpr int ROW_BYTES = SLICE + 16;       // padded: eight rows start in different banks
static_assert(COLUMNS % (SPLIT * GROUP) == 0 && WAVES % BANDS == 0 && AHEAD <= STEPS);
static_assert(STEPS * BAND_WAVES * FRAGMENT_COLUMNS == SLICE);

struct Operands {
  uint8 weights[WAVES][AHEAD][FRAGMENT_BYTES];
  uint8 rows[ROWS][ROW_BYTES];
};

struct Shared {
  Operands operands;
  ProductSums<BANDS, PARTS, SPLIT, BAND_WAVES> sums;
  float row_scales[SLICE_GROUPS][PARTS * PART_ROWS];
  float band_scales[BANDS][SLICE_GROUPS];
};

DEVICE void copy_rows(Operands &operands, const uint8 *values, int first_column) {
  constexpr int ROW_COPIES = SLICE / 16;
#pragma unroll 4
  for (int i = thread_id(); i < ROWS * ROW_COPIES; i += THREADS) {
    int row = i / ROW_COPIES, column = i % ROW_COPIES * 16;
    copy_16_shared_bytes(shared_address(&operands.rows[row][column]),
                         values + row_major_offset(row, first_column + column, COLUMNS));
  }
}

DEVICE void copy_fragment(SharedAddress place, const uint8 *weights) {
#pragma unroll
  for (int byte = 0; byte < FRAGMENT_BYTES; byte += COPY_BYTES) copy_16_bytes(place + byte, weights + byte);
}

// Scales of rows that do not exist are anything: nothing of such rows is stored.
DEVICE void load_scales(Shared &shared, const float *scales, const float *weight_scales, int first_group,
                        int first_band, int last_band) {
  for (int i = thread_id(); i < SLICE_GROUPS * ROWS; i += THREADS)
    shared.row_scales[i / ROWS][i % ROWS] = scales[group_major_scale_offset(0, first_group, ROWS) + i];
  for (int i = thread_id(); i < SLICE_GROUPS * BANDS; i += THREADS) {
    int band = first_band + i / SLICE_GROUPS, group = i % SLICE_GROUPS;
    band = band < last_band ? band : last_band;
    shared.band_scales[i / SLICE_GROUPS][group] =
        weight_scales[row_major_scale_offset(band / BANDS_PER_SCALE, first_group + group, COLUMNS / GROUP)];
  }
}

// The scaled products of the slice, once all copies but those of the ring have arrived.
DEVICE void multiply_slice(Shared &shared, const uint8 *weights, PartTotals (&totals)[PARTS]) {
  int band = wave_id() / BAND_WAVES, first = wave_id() % BAND_WAVES;
  SharedAddress ring = shared_address(&shared.operands.weights[wave_id()][0][lane_id() * 16]), place = ring, rows[PARTS];
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    int row = part * PART_ROWS + lane_id() % PART_ROWS;
    rows[part] = shared_address(&shared.operands.rows[row < ROWS ? row : ROWS - 1][lane_id() / PART_ROWS * TILE]);
  }
#pragma unroll UNROLLED
  for (int step = 0; step < STEPS; ++step) {
    int fragment = step * BAND_WAVES + first, group = fragment / FRAGMENTS_PER_GROUP;
    await_copies<AHEAD - 1>();
    wave_barrier();
    // Of each of four tiles the upper and the lower rows.
    uint32x4 left = load_matrices(place), right = load_matrices(place + COPY_BYTES);
    if (step + AHEAD < STEPS) copy_fragment(place, weights + (step + AHEAD) * (BAND_WAVES * FRAGMENT_BYTES));
    end_copies();
    place = place == ring + (AHEAD - 1) * FRAGMENT_BYTES ? ring : place + FRAGMENT_BYTES;
    Fragment tiles = {{{left[0], left[2], right[0], right[2]}, {left[1], left[3], right[1], right[3]}}};
    float band_scale = shared.band_scales[band][group];
#pragma unroll
    for (int part = 0; part < PARTS; ++part) {
      PartTotals sums;
      multiply_part(tiles, load_matrices(rows[part] + fragment * FRAGMENT_COLUMNS), sums.element);
#pragma unroll
      for (int c = 0; c < PART_COLUMNS; ++c) {
        float scale = band_scale * shared.row_scales[group][part * PART_ROWS + accumulator_column(c)];
#pragma unroll
        for (int r = 0; r < ACCUMULATOR_ROWS; ++r) totals[part].element[c][r] += scale * sums.element[c][r];
      }
    }
  }
}

DEVICE void gemm_fp8_blockscale(EarlyWorkgroup workgroup, Shared &shared, const uint8 *values, const float *scales,
                                const uint8 *weight, const float *weight_scales, bf16 *result, int bands) {
  auto &operands = shared.operands;
  int slice = workgroup.x % SPLIT, first_band = workgroup.x / SPLIT * BANDS, first_group = slice * SLICE_GROUPS;
  // Bands past the end repeat the last one, and are not stored.
  int band = first_band + wave_id() / BAND_WAVES, first = wave_id() % BAND_WAVES;
  band = band < bands ? band : bands - 1;
  const uint8 *weights = weight + tiled_16x16_offset(int64(band) * TILE, first_group * GROUP, COLUMNS) +
                         first * FRAGMENT_BYTES + lane_id() * 16;
#pragma unroll
  for (int step = 0; step < AHEAD; ++step) {
    copy_fragment(shared_address(&operands.weights[wave_id()][step][lane_id() * 16]),
                  weights + step * (BAND_WAVES * FRAGMENT_BYTES));
    if (step == 0 && !workgroup.waits()) copy_rows(operands, values, first_group * GROUP);
    end_copies();
  }
  join_cluster(shared.sums, slice);
  if (workgroup.waits()) {
    workgroup.await_inputs();
    copy_rows(operands, values, first_group * GROUP);
    end_copies();
    await_copies<0>();
  }
  load_scales(shared, scales, weight_scales, first_group, first_band, bands - 1);
  await_copies<AHEAD - 1>();
  barrier();
  PartTotals totals[PARTS];
  multiply_slice(shared, weights, totals);
  auto sums_of = [&](int i) INLINE {
    auto &sums = totals[i].element;  // [row][output]
    return float4{sums[0][0], sums[1][0], sums[0][1], sums[1][1]};
  };
  add_products<ROWS, PARTS>(shared.sums, slice, wave_id() / BAND_WAVES, slice * BAND_WAVES + first, sums_of, result,
                            bands * TILE, first_band * TILE);
}
