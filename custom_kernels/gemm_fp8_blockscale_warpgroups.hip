// Block-scaled FP8 matrix multiplication by warpgroups, on NVIDIA: the SPLIT workgroups of a cluster share BANDS bands of
// 16 weight rows, each takes a slice of the COLUMNS columns.
//
// A wave multiplies a band, four of them together, with the ROWS rows as UNIT_ROWS; the waves of a band take the groups
// of the slice in turn. The copy engine brings each wave the weights of AHEAD groups, before the rows are there; the slice
// of the ROWS rows lies in workgroup memory as a whole, and is multiplied as it arrives. Nothing is converted.
#include "pipeline.h"
#include "product_sums.h"
#include "row_copies.h"
#include "warpgroup_fp8.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE, BAND_WAVES = WAVES / BANDS;
constexpr int GROUPS = COLUMNS / SPLIT / GROUP, TURNS = GROUPS / BAND_WAVES;
static_assert(GROUP == WARPGROUP_COLUMNS);
constexpr int BAND_BYTES = TILE * GROUP;  // of a group
constexpr int largest_divisor(int number, int most) { return number % most ? largest_divisor(number, most - 1) : most; }
// Turns whose products are under way together: as many as there are registers for.
constexpr int MOST_TOGETHER = UNIT_ROWS > 16 ? 1 : UNIT_ROWS == 16 && AHEAD < TURNS ? 2 : 4;
constexpr int TOGETHER = largest_divisor(TURNS, MOST_TOGETHER < AHEAD ? MOST_TOGETHER : AHEAD);
// Rows arrive in two stages at most.
constexpr int STAGE_TURNS = divide_up(TURNS, 2 * TOGETHER) * TOGETHER, STAGES = divide_up(TURNS, STAGE_TURNS);
constexpr int STAGE_GROUPS = STAGE_TURNS * BAND_WAVES;
// Groups of a wave's weights that are on their way while earlier workgroups still make the rows: enough to keep memory
// busy. What these store and signal comes behind all that their compute unit has been promised.
constexpr int UNDER_WAY = 2;
static_assert(COLUMNS % (SPLIT * GROUP) == 0 && GROUPS <= THREADS && ROWS <= UNIT_ROWS);
static_assert(TOGETHER <= AHEAD && AHEAD <= TURNS);  // who waits for a group has ordered it
static_assert(BANDS * BAND_WAVES == WAVES && BANDS % WARPGROUP_WAVES == 0 && TURNS * BAND_WAVES == GROUPS);

constexpr int PARTS = UNIT_ROWS / PART_ROWS;
using Sums = ProductSums<BANDS, PARTS, SPLIT, BAND_WAVES>;
// The sums take the place of the first groups of weights, or of all, when these have been multiplied: so long before the
// end that the workgroups of the cluster need not wait for each other then.
constexpr int SUM_TURNS = divide_up(sizeof(Sums), WAVES * BAND_BYTES);
constexpr int JOIN_TURN = AHEAD < TURNS ? TURNS : divide_up(SUM_TURNS, STAGE_TURNS) * STAGE_TURNS;

struct Shared {
  RowsGroup<UNIT_ROWS> rows[GROUPS];
  union {
    uint8 weights[AHEAD][WAVES][BAND_BYTES];
    Sums sums;
  };
  float scales[GROUPS][UNIT_ROWS];  // of a row and the weight
  float weight_scales[GROUPS];
  Arrival arrivals[WAVES][AHEAD];
};

// Neighbouring lanes copy from neighbouring places, and to all banks.
DEVICE void copy_rows(Shared &shared, const uint8 *values) {
  constexpr int GROUP_COPIES = UNIT_ROWS * COLUMN_TILES, COPIES = STAGE_GROUPS * GROUP_COPIES;
#pragma unroll
  for (int stage = 0; stage < STAGES; ++stage) {
#pragma unroll
    for (int first = 0; first < COPIES; first += THREADS) {
      int index = first + thread_id(), group = stage * STAGE_GROUPS + index / GROUP_COPIES;
      int row = index % GROUP_COPIES / COLUMN_TILES, tile = index % COLUMN_TILES;
      if (index < COPIES && group < GROUPS && row < ROWS)
        copy_16_bytes(shared_address(&shared.rows[group].piece(row, tile)),
                      values + row_major_offset(row, group * GROUP + tile * TILE, COLUMNS));
    }
    end_copies();
  }
}

// The thread's copies of stage `stage` have arrived.
DEVICE void await_stage(int stage) {
  if (stage == STAGES - 1) await_copies<0>();
  else await_copies<1>();
}

DEVICE void gemm_fp8_blockscale(EarlyWorkgroup workgroup, Shared &shared, const uint8 *values, const float *scales,
                                const uint8 *weight, const float *weight_scales, bf16 *result, int bands) {
  int slice = workgroup.x % SPLIT, first_band = workgroup.x / SPLIT * BANDS, first_group = slice * GROUPS;
  // Asked for before the weights, behind which it would wait.
  float weight_scale = 0;
  if (thread_id() < GROUPS)
    weight_scale = weight_scales[row_major_scale_offset(first_band * TILE / GROUP, first_group + thread_id(),
                                                        COLUMNS / GROUP)];
  schedule_boundary();

  // Bands past the end repeat the last one, and are not stored.
  int band = first_band + wave_id() % BANDS, own_group = wave_id() / BANDS;
  band = band < bands ? band : bands - 1;
  const uint8 *weights = weight + tiled_16x16_offset(int64(band) * TILE, (first_group + own_group) * GROUP, COLUMNS);
  auto &arrivals = shared.arrivals[wave_id()];
  if (!workgroup.waits()) copy_rows(shared, values + first_group * GROUP);
  if (lane_id() == 0) {
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) start(arrivals[turn]);
    publish_to_engines();
#pragma unroll
    for (int turn = 0; turn < AHEAD; ++turn) {
      if (workgroup.waits() && turn >= UNDER_WAY) wait_for(arrivals[turn - UNDER_WAY], 0);
      copy_in(shared.weights[turn][wave_id()], weights + turn * (BAND_WAVES * BAND_BYTES), arrivals[turn]);
    }
  }
  schedule_boundary();
  if (thread_id() < GROUPS) shared.weight_scales[thread_id()] = weight_scale;
  workgroup.await_inputs();

  if (workgroup.waits()) copy_rows(shared, values + first_group * GROUP);
  scales += group_major_scale_offset(0, first_group, ROWS);
  constexpr int OWN_SCALES = divide_up(GROUPS * ROWS, THREADS);
  float row_scales[OWN_SCALES];
#pragma unroll
  for (int k = 0; k < OWN_SCALES; ++k) {
    int i = k * THREADS + thread_id();
    if (i < GROUPS * ROWS) row_scales[k] = scales[i];
  }
  if (!workgroup.waits()) barrier();  // for the weight's scales; who waits has met one
#pragma unroll
  for (int k = 0; k < OWN_SCALES; ++k) {
    int i = k * THREADS + thread_id();
    if (i < GROUPS * ROWS) shared.scales[i / ROWS][i % ROWS] = shared.weight_scales[i / ROWS] * row_scales[k];
  }

  WarpgroupSums<UNIT_ROWS> totals = {};
#pragma unroll 1
  for (int turn = 0; turn < TURNS; turn += TOGETHER) {
    if (turn % STAGE_TURNS == 0) {
      await_stage(turn / STAGE_TURNS);
      publish_to_engines();
      barrier();
      if (SPLIT > 1 && turn == JOIN_TURN) join_cluster(shared.sums, slice);
    }
    LeftRows left[TOGETHER];
    WarpgroupSums<UNIT_ROWS> sums[TOGETHER];
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) {
      int slot = (turn + k) % AHEAD;
      wait_for(arrivals[slot], (turn + k) / AHEAD);
      load_left_rows(shared.weights[slot][wave_id()], left[k]);
      start_group(left[k], shared.rows[(turn + k) * BAND_WAVES + own_group], sums[k]);
    }
    finish_groups();
#pragma unroll
    for (int k = 0; k < TOGETHER; ++k) {
      pin(sums[k]);
      int slot = (turn + k) % AHEAD, group = (turn + k) * BAND_WAVES + own_group;
      if (turn + k + AHEAD < TURNS) {
        wave_barrier();
        if (lane_id() == 0)
          copy_in(shared.weights[slot][wave_id()], weights + (turn + k + AHEAD) * (BAND_WAVES * BAND_BYTES),
                  arrivals[slot]);
      }
#pragma unroll
      for (int i = 0; i < UNIT_ROWS / 8; ++i) {
        float2 scale = *(const float2 *)&shared.scales[group][8 * i + lane_id() % 4 * 2];
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
          for (int j = 0; j < 2; ++j) totals[i][half][j] += scale[j] * sums[k][i][half][j];
      }
    }
  }
  if constexpr (SPLIT > 1 && JOIN_TURN >= TURNS) {
    barrier();  // the weights have been read
    join_cluster(shared.sums, slice);
  }
  auto sums_of = [&](int i) INLINE {
    return float4{totals[i][0][0], totals[i][0][1], totals[i][1][0], totals[i][1][1]};
  };
  add_products<ROWS, PARTS>(shared.sums, slice, wave_id() % BANDS, slice * BAND_WAVES + own_group, sums_of, result,
                            bands * TILE, first_band * TILE);
}
