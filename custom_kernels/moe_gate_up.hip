// First matrix of the routed experts. Of the (row, expert) pairs that name one expert, the workgroups of the
// first compute them all, 16 * ROW_TILES at a time, so that an expert's weight is read once; others leave.
#include "bf16.h"
#include "block_scaled.h"
#include "expert_pairs.h"

DEVICE void gate_up_tile(const QuantizedRows &x, const int *expert_ids, int experts_per_row,
                         const uint8 *weight, const float *weight_scales, bf16 *result, int bands, int band,
                         int pair) {
  constexpr int PAIRS = ROW_TILES * TILE;
  SHARED int members[PAIRS];
  int pairs = x.rows * experts_per_row;
  if (!is_first_of_expert(expert_ids, pair)) return;
  int expert = expert_ids[pair];
  WeightBand weights = weight_band(weight, weight_scales, expert, bands, x.columns, band);
  for (int done = 0, count = 1; done < count; done += PAIRS) {
    barrier();  // the previous members may still be read
    count = list_pairs_of_expert(expert_ids, expert, pair, pairs, done, PAIRS, members);
    barrier();
    int here = count - done < PAIRS ? count - done : PAIRS;
    // Places past the last member repeat it, and are not stored.
    auto row_of = [&](int i) { return members[i < here ? i : here - 1] / experts_per_row; };
    Accumulator totals[ROW_TILES];
    multiply_groups(x, row_of, divide_up(here, TILE), weights, uniform_wave_id(), WAVES, totals);
    sum_waves<ROW_TILES, WAVES>(totals, [&](int i, int column, float sum) {
      if (i < here) result[row_major_offset(members[i], band * TILE + column, bands * TILE)] = to_bf16(sum);
    });
  }
}

KERNEL(WAVES *WAVE_SIZE)
void moe_gate_up(const uint8 *__restrict__ values, const float *__restrict__ scales,
                 const int *__restrict__ expert_ids, const uint8 *__restrict__ weight,
                 const float *__restrict__ weight_scales, bf16 *__restrict__ result, int rows,
                 int experts_per_row, int bands, int columns) {
  gate_up_tile({values, scales, rows, columns}, expert_ids, experts_per_row, weight, weight_scales, result,
               bands, workgroup_x(), workgroup_y());
}
