// Unquantised matrix multiplication at few rows, on NVIDIA: SPLIT workgroups of a cluster share BANDS bands of 16 weight
// rows and BLOCK of the ROWS activation rows, each takes a slice of the COLUMNS columns. That many workgroups fill the
// chip, and each reads little of the activations, which all of them read from the same places of the cache.
//
// Weight and activation rows come through a ring of AHEAD stages of STAGE columns in workgroup memory; the waves share
// the columns of a stage.
#include "cluster_sums.h"
#include "half_matrix.h"
#include "row_copies.h"
#include "wave_totals.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE;
constexpr int OUTPUTS = BANDS * TILE;
constexpr int PARTS = divide_up(BLOCK, PART_ROWS);
constexpr int SLICE = COLUMNS / SPLIT, STAGES = divide_up(SLICE, STAGE);
constexpr int STEPS = STAGE / HALF_COLUMNS / WAVES;
constexpr int COPY_COLUMNS = 16 / sizeof(bf16);
constexpr int ROW_COLUMNS = STAGE + COPY_COLUMNS;  // padded: eight rows start in different banks
constexpr int VECTORS = OUTPUTS / 4;               // sums of a row, four outputs each
static_assert(SLICE % HALF_COLUMNS == 0 && STEPS * HALF_COLUMNS * WAVES == STAGE && AHEAD <= STAGES);

struct Stage {
  bf16 weights[OUTPUTS][ROW_COLUMNS], rows[BLOCK][ROW_COLUMNS];
};

struct Shared {
  union {
    Stage stages[AHEAD];
    WaveTotals<WAVES, PARTS * PART_ROWS> totals[BANDS];
  };
  ClusterSums<BLOCK * VECTORS, SPLIT> sums;
};

DEVICE bool in_slice(int stage, int column) { return SLICE % STAGE == 0 || stage * STAGE + column < SLICE; }

// Copies a stage of the first `count` of up to COUNT rows, whose slices begin at `source`. What is not there is not
// copied: it only meets sums that are not stored.
template <int COUNT> DEVICE void copy_rows(bf16 (&place)[COUNT][ROW_COLUMNS], const bf16 *source, int count, int stage) {
  constexpr int ROW_COPIES = STAGE / COPY_COLUMNS, COPIES = COUNT * ROW_COPIES;
#pragma unroll
  for (int first = 0; first < COPIES; first += THREADS) {
    int i = first + thread_id(), row = i / ROW_COPIES, column = i % ROW_COPIES * COPY_COLUMNS;
    if (row >= count || !in_slice(stage, column)) continue;
    copy_16_bytes(shared_address(&place[row][column]), source + row_major_offset(row, stage * STAGE + column, COLUMNS));
  }
}

DEVICE void multiply_stage(const Stage &place, int stage, PartTotals (&totals)[BANDS][PARTS]) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    int column = (step * WAVES + wave_id()) * HALF_COLUMNS;
    if (!in_slice(stage, column)) continue;
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

DEVICE void linear_bf16(EarlyWorkgroup workgroup, Shared &shared, const bf16 *x, const bf16 *weight, float *result,
                        int outputs) {
  int slice = workgroup.x % SPLIT, first_output = workgroup.x / SPLIT * OUTPUTS, first_row = workgroup.y * BLOCK;
  int here = outputs - first_output < OUTPUTS ? outputs - first_output : OUTPUTS;
  int rows = ROWS % BLOCK == 0 || ROWS - first_row > BLOCK ? BLOCK : ROWS - first_row;
  x += row_major_offset(first_row, slice * SLICE, COLUMNS);
  weight += row_major_offset(first_output, slice * SLICE, COLUMNS);
#pragma unroll
  for (int stage = 0; stage < AHEAD; ++stage) copy_rows(shared.stages[stage].weights, weight, here, stage);
  if constexpr (SPLIT > 1) join_cluster(shared.sums, slice);
  workgroup.await_inputs();
#pragma unroll
  for (int stage = 0; stage < AHEAD; ++stage) {
    copy_rows(shared.stages[stage].rows, x, rows, stage);
    end_copies();
  }
  PartTotals totals[BANDS][PARTS];
#pragma unroll 4
  for (int stage = 0; stage < STAGES; ++stage) {
    await_copies<AHEAD - 1>();
    barrier();
    Stage &place = shared.stages[stage % AHEAD];
    multiply_stage(place, stage, totals);
    if (stage + AHEAD < STAGES) {
      barrier();
      copy_rows(place.weights, weight, here, stage + AHEAD);
      copy_rows(place.rows, x, rows, stage + AHEAD);
    }
    end_copies();
  }
  barrier();  // the last stages have been read
#pragma unroll
  for (int band = 0; band < BANDS; ++band) keep_totals(totals[band], shared.totals[band]);
  barrier();
  auto store = [&](int i, float4 sum) INLINE {
    int row = i / VECTORS, output = i % VECTORS * 4;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      if (row < rows && output + j < here)
        result[row_major_offset(first_row + row, first_output + output + j, outputs)] = sum[j];
  };
  if constexpr (SPLIT > 1) await_cluster();
  for (int i = thread_id(); i < BLOCK * VECTORS; i += THREADS) {
    int output = i % VECTORS * 4;
    float4 sum = sum_of_waves(shared.totals[output / TILE], i / VECTORS, output % TILE);
    if constexpr (SPLIT > 1) send_term(shared.sums, slice, i, sum);
    else store(i, sum);
  }
  if constexpr (SPLIT > 1) {
    await_terms(shared.sums);
    for (int i = thread_id(); i < shared.sums.count(slice); i += THREADS)
      store(shared.sums.first(slice) + i, sum_of_terms(shared.sums, i));
  }
}
