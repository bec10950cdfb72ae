// Attention parts to 128 value columns of one head and row: combined, multiplied with kv_b's value half, quantised.
// LATENT, a multiple of 16, SPLITS (parts) and NOPE are compile-time constants.
#include "cpu.h"

constexpr int LANES = 16;
static_assert(LATENT % LANES == 0);

// The mean of the parts, weighted by their softmax; zeros where there are no tokens.
static void combine(const _Float16 *parts, const float *log_sums, float *attended) {
  float shares[SPLITS], largest = -__builtin_inff(), total = 0;
  for (int s = 0; s < SPLITS; ++s) largest = log_sums[s] > largest ? log_sums[s] : largest;
  for (int s = 0; s < SPLITS; ++s) {
    bool empty = log_sums[s] == -__builtin_inff();
    shares[s] = empty ? 0.0f : exp2_of_negative((log_sums[s] - largest) * 1.44269504f);
    total += shares[s];
  }
  for (int i = 0; i < LATENT; ++i) attended[i] = 0;
  for (int s = 0; s < SPLITS; ++s) {
    if (shares[s] == 0) continue;
    float share = shares[s] / total;
    for (int i = 0; i < LATENT; ++i) attended[i] += float(parts[s * LATENT + i]) * share;
  }
  for (int i = 0; i < LATENT; ++i) attended[i] = float(_Float16(attended[i]));
}

extern "C" void value_up_group_quant(BUFFER(parts), BUFFER(log_sums), BUFFER(weight), BUFFER(weight_scales),
                                     BUFFER(values), BUFFER(scales), int64 rows, int64 heads, int64 rows_per_head,
                                     int64 group, int64 head, int64 row) {
  constexpr int64 BLOCKS = (LATENT + GROUP - 1) / GROUP;
  int64 index = row * heads + head, dims = rows_per_head - NOPE;
  float attended[LATENT], weights[LATENT], result[GROUP];
  combine(POINTER(const _Float16, parts) + index * (SPLITS * LATENT), POINTER(const float, log_sums) + index * SPLITS,
          attended);
  for (int dim = 0; dim < GROUP; ++dim) {
    int64 weight_row = head * rows_per_head + NOPE + group * GROUP + dim;
    const float *block_scales = POINTER(const float, weight_scales) + weight_row / GROUP * BLOCKS;
    decode_fp8(POINTER(const uint8, weight) + weight_row * LATENT, weights, LATENT);
    float lanes[LANES], sum = 0;
    for (int i = 0; i < LANES; ++i) lanes[i] = 0;
    for (int l = 0; l < LATENT; l += LANES)
      for (int i = 0; i < LANES; ++i) lanes[i] += attended[l + i] * (weights[l + i] * block_scales[l / GROUP]);
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    result[dim] = decode_bf16(encode_bf16(sum));
  }
  float amax = amax_of(result, GROUP), scale = (amax < 1e-10f ? 1e-10f : amax) / FP8_MAXIMUM;
  encode_scaled(result, POINTER(uint8, values) + index * dims + group * GROUP, GROUP, scale);
  POINTER(float, scales)[group_major_scale_offset(row, head * (dims / GROUP) + group, rows)] = scale;
}
