// Unquantised matrix multiplication at few rows: a workgroup takes OUTPUTS weight rows (in BANDS of 16) and
// PART_ROWS * PARTS of the ROWS activation rows; its waves share the COLUMNS columns.
// WEIGHTS_AHEAD, ROWS_AHEAD: see pipeline.h.
#include "half_matrix.h"
#include "wave_totals.h"

constexpr int WAVES = 256 / WAVE_SIZE;

using Shared = ProductMemory<WAVES, PARTS * PART_ROWS, ROWS_AHEAD>;

struct Weights {
  Fragment of_band[BANDS];
};

// The eight columns that a lane has of each row, four at a time.
DEVICE void multiply_fragment(const Fragment &weights, uint32x4 rows, PartTotals &totals) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    HalfFragment four;
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      four.part[part] = {weights.part[part][2 * half], weights.part[part][2 * half + 1]};
    multiply_part_bf16(four, uint32x2{rows[2 * half], rows[2 * half + 1]}, totals.element);
  }
}

DEVICE const uint32x4 *lane_address(const bf16 *matrix, int row, int fragment) {
  auto bytes = (const uint8 *)(matrix + row_major_offset(row, 0, COLUMNS));
  return (const uint32x4 *)(bytes + fragment * FRAGMENT_COLUMNS + fragment_tile() * TILE);
}

// Rows and outputs past the end repeat the last one, and are not stored.
DEVICE void linear_tile(Shared &shared, const bf16 *x, const bf16 *weight, float *result, int outputs, int first_row,
                        int first_output) {
  int end = first_output + OUTPUTS < outputs ? first_output + OUTPUTS : outputs;
  auto row_of = [&](int i) { return first_row + i < ROWS ? first_row + i : ROWS - 1; };
  auto output_of = [&](int i) { return first_output + i < end ? first_output + i : end - 1; };
  FragmentShare<COLUMNS * int(sizeof(bf16)) / FRAGMENT_COLUMNS, WAVES> share = {uniform_wave_id()};
  auto load_weights = [&](int step) INLINE {
    Weights loaded;
#pragma unroll
    for (int band = 0; band < BANDS; ++band)
#pragma unroll
      for (int part = 0; part < FRAGMENT_PARTS; ++part)
        // Where the first part holds all outputs, the others repeat it.
        loaded.of_band[band].part[part] =
            part > 0 && OUTPUTS <= PART_ROWS
                ? loaded.of_band[band].part[0]
                : *lane_address(weight, output_of(band * TILE + fragment_row(part)), share.fragment(step));
    return loaded;
  };
  auto row_address = [&](int step, int part) INLINE {
    return lane_address(x, row_of(part * PART_ROWS + fragment_row(0)), share.fragment(step));
  };
  PartTotals totals[BANDS][PARTS];
  auto multiply = [&](const Weights &weights, uint32x4 rows, int step, int part) INLINE {
    if (!share.has(step)) return;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) multiply_fragment(weights.of_band[band], rows, totals[band][part]);
  };
  multiply_ahead<share.STEPS, PARTS, WEIGHTS_AHEAD>(shared.rows, load_weights, row_address, multiply);
#pragma unroll
  for (int band = 0; band < BANDS; ++band)
    add_waves<WAVES>(totals[band], shared.totals, [&](int row, int column, float sum) INLINE {
      int output = first_output + band * TILE + column;
      if (first_row + row < ROWS && output < end) result[row_major_offset(first_row + row, output, outputs)] = sum;
    });
}

DEVICE void linear_bf16(Workgroup workgroup, Shared &shared, const bf16 *x, const bf16 *weight, float *result,
                        int outputs) {
  int first_row = ROWS > PARTS * PART_ROWS ? workgroup.y * PARTS * PART_ROWS : 0;
  linear_tile(shared, x, weight, result, outputs, first_row, workgroup.x * OUTPUTS);
}
