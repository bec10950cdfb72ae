// Gate and up projections of one expert for all rows routed to it; a workgroup makes 16 output columns.
// The expert's weights are decoded once per 64 routed pairs.
#include "cpu.h"

constexpr int PAIRS = 64;

extern "C" void moe_gate_up(BUFFER(values), BUFFER(scales), BUFFER(expert_ids), BUFFER(weight), BUFFER(weight_scales),
                            BUFFER(result), int64 rows, int64 routed, int64 columns, int64 depth, int64 band,
                            int64 expert, int64) {
  const int *ids = POINTER(const int, expert_ids);
  const uint8 *weights = POINTER(const uint8, weight) + expert * columns * depth + band * TILE * depth;
  int64 groups = depth / GROUP, blocks = (columns + GROUP - 1) / GROUP;
  const float *block_scales = POINTER(const float, weight_scales) + (expert * blocks + band * TILE / GROUP) * groups;

  int64 next = 0, total = rows * routed;
  while (next < total) {
    int pairs[PAIRS], count = 0;
    for (; next < total && count < PAIRS; ++next)
      if (ids[next] == expert) pairs[count++] = int(next);
    if (count == 0) return;
    float sums[PAIRS][TILE];
    for (int p = 0; p < count; ++p)
      for (int n = 0; n < TILE; ++n) sums[p][n] = 0;

    for (int64 group = 0; group < groups; ++group) {
      float block[GROUP][TILE];  // transposed: the columns are the vector
      for (int k = 0; k < GROUP; ++k)
        for (int n = 0; n < TILE; ++n)
          block[k][n] = decode_fp8(weights[tiled_16x16_offset(n, group * GROUP + k, depth)]);
      for (int p = 0; p < count; ++p) {
        int64 row = pairs[p] / routed;
        float input[GROUP], partial[TILE];
        decode_fp8(POINTER(const uint8, values) + row * depth + group * GROUP, input, GROUP);
        for (int n = 0; n < TILE; ++n) partial[n] = 0;
        for (int k = 0; k < GROUP; ++k)
          for (int n = 0; n < TILE; ++n) partial[n] += input[k] * block[k][n];
        float scale = POINTER(const float, scales)[group_major_scale_offset(row, group, rows)] * block_scales[group];
        for (int n = 0; n < TILE; ++n) sums[p][n] += partial[n] * scale;
      }
    }
    for (int p = 0; p < count; ++p)
      for (int n = 0; n < TILE; ++n)
        POINTER(uint16, result)[pairs[p] * columns + band * TILE + n] = encode_bf16(sums[p][n]);
  }
}
