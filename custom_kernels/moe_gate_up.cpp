// Gate and up projections of one expert for all rows routed to it, and silu(gate) * up; a workgroup makes 16 output
// columns. The expert's weights are decoded once per 64 routed pairs.
#include "cpu_block_scaled.h"

constexpr int PAIRS = 64;

extern "C" void moe_gate_up(BUFFER(values), BUFFER(scales), BUFFER(expert_ids), BUFFER(weight), BUFFER(weight_scales),
                            BUFFER(result), int64 rows, int64 routed, int64 columns, int64 depth, int64 band,
                            int64 expert, int64) {
  const int *ids = POINTER(const int, expert_ids);
  Activation x = {POINTER(const uint8, values), POINTER(const float, scales), rows, depth};
  auto weights = [&](int64 of_band) {
    return weight_band(POINTER(const uint8, weight), POINTER(const float, weight_scales), expert, 2 * columns, depth,
                       of_band);
  };
  for (int64 next = 0, total = rows * routed; next < total;) {
    int64 pairs[PAIRS], row_of_pair[PAIRS];
    float gate[PAIRS][TILE], up[PAIRS][TILE];
    int count = 0;
    for (; next < total && count < PAIRS; ++next)
      if (ids[next] == expert) {
        pairs[count] = next;
        row_of_pair[count++] = next / routed;
      }
    if (count == 0) return;
    multiply_band(x, row_of_pair, count, weights(band), gate);
    multiply_band(x, row_of_pair, count, weights(columns / TILE + band), up);
    for (int p = 0; p < count; ++p)
      for (int n = 0; n < TILE; ++n) {
        float g = decode_bf16(encode_bf16(gate[p][n])), u = decode_bf16(encode_bf16(up[p][n]));
        POINTER(uint16, result)[pairs[p] * columns + band * TILE + n] = encode_bf16(g / (1.0f + exponential(-g)) * u);
      }
  }
}
