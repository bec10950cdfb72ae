// First matrix of the routed experts. Of the (row, expert) pairs that name one expert, the workgroups of the
// first compute them all, 16 * ROW_TILES at a time, so that an expert's weight is read once; others leave.
#include "bf16.h"
#include "block_scaled.h"
#include "expert_pairs.h"

constexpr int PAIRS = ROW_TILES * TILE;

struct Shared {
  int members[PAIRS];
  WaveSums<ROW_TILES, WAVES> sums;
};

DEVICE void gate_up_tile(Shared &shared, const QuantizedRows &x, const int *expert_ids, int experts_per_row,
                         const uint8 *weight, const float *weight_scales, bf16 *result, int bands, int band,
                         int pair) {
  auto &members = shared.members;
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
    sum_waves<ROW_TILES, WAVES>(totals, shared.sums, [&](int i, int column, float sum) {
      if (i < here) result[row_major_offset(members[i], band * TILE + column, bands * TILE)] = to_bf16(sum);
    });
  }
}

DEVICE void moe_gate_up(Workgroup workgroup, Shared &shared, const uint8 *values, const float *scales, const int *expert_ids,
                        const uint8 *weight, const float *weight_scales, bf16 *result, int rows, int experts_per_row,
                        int bands, int columns) {
  gate_up_tile(shared, {values, scales, rows, columns}, expert_ids, experts_per_row, weight, weight_scales, result,
               bands, workgroup.x, workgroup.y);
}
