// Second matrix of the routed experts and their weighted sum. A workgroup takes one row and 16 weight rows of
// each of the row's experts; a wave multiplies whole experts, whose results are added in the router's order.
#include "bf16.h"
#include "block_scaled.h"

struct Shared {
  float of_expert[EXPERTS_PER_ROW][TILE];
};

DEVICE void down_tile(Shared &shared, const QuantizedRows &u, const int *expert_ids, const float *expert_weights,
                      const uint8 *weight, const float *weight_scales, bf16 *result, int bands, int band,
                      int row) {
  auto &of_expert = shared.of_expert;
  for (int j = uniform_wave_id(); j < EXPERTS_PER_ROW; j += WAVES) {
    int pair = row * EXPERTS_PER_ROW + j;
    // All 16 columns of the tile repeat the one activation row; the first is kept.
    auto row_of = [&](int) { return pair; };
    Accumulator totals[1];
    WeightBand expert = weight_band(weight, weight_scales, expert_ids[pair], bands, u.columns, band);
    multiply_groups(u, row_of, 1, expert, 0, 1, totals);
    if (accumulator_column(0) == 0)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) of_expert[j][accumulator_row(r)] = totals[0].element[0][r];
  }
  barrier();
  if (thread_id() >= TILE) return;
  const float *weights = expert_weights + row_major_offset(row, 0, EXPERTS_PER_ROW);
  float sum = weights[0] * of_expert[0][thread_id()];
  for (int j = 1; j < EXPERTS_PER_ROW; ++j) sum += weights[j] * of_expert[j][thread_id()];
  result[row_major_offset(row, band * TILE + thread_id(), bands * TILE)] = to_bf16(sum);
}

DEVICE void moe_down(Workgroup workgroup, Shared &shared, const uint8 *values, const float *scales, const int *expert_ids,
                     const float *expert_weights, const uint8 *weight, const float *weight_scales, bf16 *result,
                     int rows, int bands, int columns) {
  down_tile(shared, {values, scales, rows * EXPERTS_PER_ROW, columns}, expert_ids, expert_weights, weight,
            weight_scales, result, bands, workgroup.y, workgroup.x);
}
