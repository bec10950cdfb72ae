// Down projection of a row's experts and their weighted sum; a workgroup makes 16 columns of one row.
#include "cpu.h"

extern "C" void moe_down(BUFFER(values), BUFFER(scales), BUFFER(expert_ids), BUFFER(expert_weights), BUFFER(weight),
                         BUFFER(weight_scales), BUFFER(result), int64 rows, int64 routed, int64 columns, int64 depth,
                         int64 band, int64 row, int64) {
  int64 groups = depth / GROUP, blocks = (columns + GROUP - 1) / GROUP;
  float output[TILE];
  for (int n = 0; n < TILE; ++n) output[n] = 0;
  for (int64 j = 0; j < routed; ++j) {
    int64 pair = row * routed + j, expert = POINTER(const int, expert_ids)[pair];
    const uint8 *weights = POINTER(const uint8, weight) + expert * columns * depth + band * TILE * depth;
    const float *block_scales = POINTER(const float, weight_scales) + (expert * blocks + band * TILE / GROUP) * groups;
    float sums[TILE];
    for (int n = 0; n < TILE; ++n) sums[n] = 0;
    for (int64 group = 0; group < groups; ++group) {
      float input[GROUP];
      decode_fp8(POINTER(const uint8, values) + pair * depth + group * GROUP, input, GROUP);
      float scale = POINTER(const float, scales)[group_major_scale_offset(pair, group, rows * routed)] *
                    block_scales[group];
      for (int n = 0; n < TILE; ++n) {
        float lanes[TILE];  // a fixed order of addition that vectorises
        for (int i = 0; i < TILE; ++i) lanes[i] = 0;
        for (int k = 0; k < GROUP; k += TILE)
          for (int i = 0; i < TILE; ++i)
            lanes[i] += input[k + i] * decode_fp8(weights[tiled_16x16_offset(n, group * GROUP + k, depth) + i]);
        float sum = 0;
        for (int i = 0; i < TILE; ++i) sum += lanes[i];
        sums[n] += sum * scale;
      }
    }
    float share = POINTER(const float, expert_weights)[pair];
    for (int n = 0; n < TILE; ++n) output[n] += share * sums[n];
  }
  for (int n = 0; n < TILE; ++n) POINTER(uint16, result)[row * columns + band * TILE + n] = encode_bf16(output[n]);
}
