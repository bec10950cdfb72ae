// Down projection of a row's experts and their weighted sum; a workgroup makes up to MOST_BANDS * 16 columns of one
// row. MOST_BANDS is a compile-time constant.
#include "cpu_block_scaled.h"

extern "C" void moe_down(BUFFER(values), BUFFER(scales), BUFFER(expert_ids), BUFFER(expert_weights), BUFFER(weight),
                         BUFFER(weight_scales), BUFFER(result), int64 rows, int64 routed, int64 bands, int64 depth,
                         int64 part, int64 row, int64) {
  int64 first = part * MOST_BANDS, end = first + MOST_BANDS < bands ? first + MOST_BANDS : bands;
  Activation x = {POINTER(const uint8, values), POINTER(const float, scales), rows * routed, depth};
  float output[MOST_BANDS][TILE], sums[1][TILE];
  for (int i = 0; i < MOST_BANDS; ++i)
    for (int n = 0; n < TILE; ++n) output[i][n] = 0;
  for (int64 pair = row * routed; pair < (row + 1) * routed; ++pair) {
    int64 expert = POINTER(const int, expert_ids)[pair];
    float share = POINTER(const float, expert_weights)[pair];
    for (int64 band = first; band < end; ++band) {
      multiply_band(x, &pair, 1,
                    weight_band(POINTER(const uint8, weight), POINTER(const float, weight_scales), expert,
                                bands * TILE, depth, band),
                    sums);
      for (int n = 0; n < TILE; ++n) output[band - first][n] += share * sums[0][n];
    }
  }
  uint16 *result = POINTER(uint16, result) + (row * bands + first) * TILE;
  for (int64 i = 0; i < (end - first) * TILE; ++i) result[i] = encode_bf16(output[i / TILE][i % TILE]);
}
