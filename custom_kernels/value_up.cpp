// Attention output times the value half of kv_b: a workgroup makes one head's output for one row.
// LATENT, a multiple of 16, is a compile-time constant.
#include "cpu.h"

constexpr int LANES = 16;

extern "C" void value_up(BUFFER(attention), BUFFER(weight), BUFFER(weight_scales), BUFFER(result), int64 heads,
                         int64 rows_per_head, int64 nope_dim, int64 head, int64 row, int64) {
  float input[LATENT], weights[LATENT];
  int64 dims = rows_per_head - nope_dim, blocks = (LATENT + GROUP - 1) / GROUP;
  for (int i = 0; i < LATENT; ++i)
    input[i] = decode_bf16(POINTER(const uint16, attention)[(row * heads + head) * LATENT + i]);
  for (int64 dim = 0; dim < dims; ++dim) {
    int64 weight_row = head * rows_per_head + nope_dim + dim;
    const float *scales = POINTER(const float, weight_scales) + weight_row / GROUP * blocks;
    decode_fp8(POINTER(const uint8, weight) + weight_row * LATENT, weights, LATENT);
    float lanes[LANES], sum = 0;
    for (int i = 0; i < LANES; ++i) lanes[i] = 0;
    for (int l = 0; l < LATENT; l += LANES)
      for (int i = 0; i < LANES; ++i) lanes[i] += input[l + i] * (weights[l + i] * scales[l / GROUP]);
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    POINTER(uint16, result)[(row * heads + head) * dims + dim] = encode_bf16(sum);
  }
}
