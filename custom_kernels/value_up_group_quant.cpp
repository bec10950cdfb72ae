// Attention parts to the value columns of one head and row: combined, multiplied with kv_b's value half, quantised.
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

// 128 columns of `result` are products of `attended` with as many rows of the weight, from row `first` on.
static void multiply(const float *attended, const uint8 *weight, const float *scales, int64 first, float *result) {
  constexpr int64 BLOCKS = (LATENT + GROUP - 1) / GROUP;
  for (int64 row = first; row < first + GROUP; ++row) {
    const float *block_scales = scales + row / GROUP * BLOCKS;
    float weights[LATENT], lanes[LANES], sum = 0;
    decode_fp8(weight + row * LATENT, weights, LATENT);
    for (int i = 0; i < LANES; ++i) lanes[i] = 0;
    for (int l = 0; l < LATENT; l += LANES)
      for (int i = 0; i < LANES; ++i) lanes[i] += attended[l + i] * (weights[l + i] * block_scales[l / GROUP]);
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    result[row - first] = decode_bf16(encode_bf16(sum));
  }
}

extern "C" void value_up_group_quant(BUFFER(parts), BUFFER(log_sums), BUFFER(weight), BUFFER(weight_scales),
                                     BUFFER(values), BUFFER(scales), int64 rows, int64 heads, int64 rows_per_head,
                                     int64 head, int64 row, int64) {
  int64 index = row * heads + head, dims = rows_per_head - NOPE, groups = dims / GROUP;
  float attended[LATENT], result[GROUP];
  combine(POINTER(const _Float16, parts) + index * (SPLITS * LATENT), POINTER(const float, log_sums) + index * SPLITS,
          attended);
  for (int64 group = 0; group < groups; ++group) {
    multiply(attended, POINTER(const uint8, weight), POINTER(const float, weight_scales),
             head * rows_per_head + NOPE + group * GROUP, result);
    float amax = amax_of(result, GROUP), scale = (amax < 1e-10f ? 1e-10f : amax) / FP8_MAXIMUM;
    encode_scaled(result, POINTER(uint8, values) + index * dims + group * GROUP, GROUP, scale);
    POINTER(float, scales)[group_major_scale_offset(row, head * groups + group, rows)] = scale;
  }
}
