// Down projection of a row's experts and their weighted sum; a workgroup makes 16 columns of one row.
#include "cpu_block_scaled.h"

extern "C" void moe_down(BUFFER(values), BUFFER(scales), BUFFER(expert_ids), BUFFER(expert_weights), BUFFER(weight),
                         BUFFER(weight_scales), BUFFER(result), int64 rows, int64 routed, int64 columns, int64 depth,
                         int64 band, int64 row, int64) {
  Activation x = {POINTER(const uint8, values), POINTER(const float, scales), rows * routed, depth};
  float output[TILE], sums[1][TILE];
  for (int n = 0; n < TILE; ++n) output[n] = 0;
  for (int64 pair = row * routed; pair < (row + 1) * routed; ++pair) {
    int64 expert = POINTER(const int, expert_ids)[pair];
    multiply_band(x, &pair, 1,
                  weight_band(POINTER(const uint8, weight), POINTER(const float, weight_scales), expert, columns,
                              depth, band),
                  sums);
    float share = POINTER(const float, expert_weights)[pair];
    for (int n = 0; n < TILE; ++n) output[n] += share * sums[0][n];
  }
  for (int n = 0; n < TILE; ++n) POINTER(uint16, result)[row * columns + band * TILE + n] = encode_bf16(output[n]);
}
