// Unquantised matrix multiplication at few rows, on NVIDIA: SPLIT workgroups of a cluster share 16 weight rows, each
// takes a slice of the COLUMNS columns (see gemm_fp8_blockscale_split.hip).
//
// Weight and activation rows come through a ring of AHEAD stages of STAGE columns in workgroup memory; the waves share
// the columns of a stage.
#include "cluster.h"
#include "half_matrix.h"
#include "row_copies.h"
#include "wave_totals.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE;
constexpr int PARTS = divide_up(ROWS, PART_ROWS);
constexpr int SLICE = COLUMNS / SPLIT, STAGES = divide_up(SLICE, STAGE);
constexpr int STEPS = STAGE / HALF_COLUMNS / WAVES;
constexpr int COPY_COLUMNS = 16 / sizeof(bf16);
constexpr int STAGE_ROWS = TILE + ROWS;
constexpr int ROW_COLUMNS = STAGE + COPY_COLUMNS;  // padded: eight rows start in different banks
static_assert(SLICE % HALF_COLUMNS == 0 && STEPS * HALF_COLUMNS * WAVES == STAGE && AHEAD <= STAGES);

struct Shared {
  union {
    bf16 stages[AHEAD][STAGE_ROWS][ROW_COLUMNS];  // the weight's rows first
    WaveTotals<WAVES, PARTS * PART_ROWS> totals;
  };
  alignas(16) float sums[ROWS][TILE];
};

DEVICE bool in_slice(int stage, int column) { return SLICE % STAGE == 0 || stage * STAGE + column < SLICE; }

// Copies rows FIRST to END of a stage of the slices that begin at `x` and `weight`; of the weight, `outputs` rows. What is
// not there is not copied: it only meets sums that are not stored.
template <int FIRST, int END>
DEVICE void copy_stage_rows(bf16 (&place)[STAGE_ROWS][ROW_COLUMNS], const bf16 *x, const bf16 *weight, int outputs,
                            int stage) {
  constexpr int ROW_COPIES = STAGE / COPY_COLUMNS;
#pragma unroll
  for (int first = FIRST * ROW_COPIES; first < END * ROW_COPIES; first += THREADS) {
    int i = first + thread_id(), row = i / ROW_COPIES, column = i % ROW_COPIES * COPY_COLUMNS;
    if (row >= END || (row >= outputs && row < TILE) || !in_slice(stage, column)) continue;
    const bf16 *matrix = row < TILE ? weight : x;
    copy_16_bytes(shared_address(&place[row][column]),
                  matrix + row_major_offset(row < TILE ? row : row - TILE, stage * STAGE + column, COLUMNS));
  }
}

DEVICE void copy_stage(bf16 (&place)[STAGE_ROWS][ROW_COLUMNS], const bf16 *x, const bf16 *weight, int outputs,
                       int stage) {
  copy_stage_rows<0, STAGE_ROWS>(place, x, weight, outputs, stage);
}

DEVICE void multiply_stage(const bf16 (&place)[STAGE_ROWS][ROW_COLUMNS], int stage, PartTotals (&totals)[PARTS]) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    int column = (step * WAVES + wave_id()) * HALF_COLUMNS;
    if (!in_slice(stage, column)) continue;
    uint32x4 tile = load_matrices(shared_address(&place[lane_id() % TILE][column + lane_id() / TILE * COPY_COLUMNS]));
    HalfFragment weights = {{{tile[0], tile[2]}, {tile[1], tile[3]}}};
#pragma unroll
    for (int part = 0; part < PARTS; part += 2) {
      int row = part * PART_ROWS + lane_id() / TILE * PART_ROWS + lane_id() % PART_ROWS;
      uint32x4 rows = load_matrices(shared_address(
          &place[TILE + (row < ROWS ? row : ROWS - 1)][column + lane_id() / PART_ROWS % 2 * COPY_COLUMNS]));
      multiply_part_bf16(weights, uint32x2{rows[0], rows[1]}, totals[part].element);
      if (part + 1 < PARTS) multiply_part_bf16(weights, uint32x2{rows[2], rows[3]}, totals[part + 1].element);
    }
  }
}

DEVICE void linear_bf16(EarlyWorkgroup workgroup, Shared &shared, const bf16 *x, const bf16 *weight, float *result,
                        int outputs) {
  int slice = workgroup.x % SPLIT, first_output = workgroup.x / SPLIT * TILE;
  int here = outputs - first_output < TILE ? outputs - first_output : TILE;
  x += slice * SLICE;
  weight += row_major_offset(first_output, slice * SLICE, COLUMNS);
  if (workgroup.waits()) {
#pragma unroll
    for (int stage = 0; stage < AHEAD; ++stage) copy_stage_rows<0, TILE>(shared.stages[stage], x, weight, here, stage);
    workgroup.await_inputs();
  }
#pragma unroll
  for (int stage = 0; stage < AHEAD; ++stage) {
    if (workgroup.waits()) copy_stage_rows<TILE, STAGE_ROWS>(shared.stages[stage], x, weight, here, stage);
    else copy_stage(shared.stages[stage], x, weight, here, stage);
    end_copies();
  }
  PartTotals totals[PARTS];
#pragma unroll 4
  for (int stage = 0; stage < STAGES; ++stage) {
    await_copies<AHEAD - 1>();
    barrier();
    auto &place = shared.stages[stage % AHEAD];
    multiply_stage(place, stage, totals);
    if (stage + AHEAD < STAGES) {
      barrier();
      copy_stage(place, x, weight, here, stage + AHEAD);
    }
    end_copies();
  }
  add_waves<WAVES>(totals, shared.totals, [&](int row, int output, float sum) INLINE {
    if (row >= ROWS) return;
    if (SPLIT > 1) shared.sums[row][output] = sum;
    else if (output < here) result[row_major_offset(row, first_output + output, outputs)] = sum;
  });
  if constexpr (SPLIT > 1) {
    barrier();
    cluster_barrier();
    for (int i = slice * THREADS + thread_id(); i < ROWS * (TILE / 4); i += SPLIT * THREADS) {
      int row = i / (TILE / 4), output = i % (TILE / 4) * 4;
      float4 sums[SPLIT], sum = {};
#pragma unroll
      for (int other = 0; other < SPLIT; ++other) sums[other] = read_neighbour<SPLIT>(&shared.sums[row][output], other);
#pragma unroll
      for (int other = 0; other < SPLIT; ++other) sum += sums[other];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (output + j < here) result[row_major_offset(row, first_output + output + j, outputs)] = sum[j];
    }
    cluster_barrier();  // the others have read this one's memory
  }
}
