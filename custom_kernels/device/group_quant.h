// Group quantisation of activations: 128 columns share a scale; 16 lanes hold a group, 8 columns each.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int COLUMNS_PER_LANE = 8;
constexpr int GROUP_LANES = GROUP / COLUMNS_PER_LANE;
constexpr float ACTIVATION_SCALE_FLOOR = 1e-10f;

// `values` are this lane's columns of its group; `codes` receives them, and `scale` the group's scale from
// its first lane. All lanes of the wave must call; those with `stores` false leave memory alone.
//
// scale = max(amax, 1e-10) / maximum, code = round(clamp(value * (1 / scale))).
DEVICE void quantize_group(const float (&values)[8], uint8 *codes, float *scale, bool stores) {
  uint32 amax_bits = 0;  // magnitudes order as integers, with NaN above all
#pragma unroll
  for (int i = 0; i < 8; ++i)
    amax_bits = Maximum::combine(amax_bits, __builtin_bit_cast(uint32, values[i]) & 0x7FFFFFFF);
  float amax = __builtin_bit_cast(float, reduce_lanes<Maximum, GROUP_LANES>(int(amax_bits)));
  float group_scale = (amax < ACTIVATION_SCALE_FLOOR ? ACTIVATION_SCALE_FLOOR : amax) / FP8_MAXIMUM;
  float inverse = 1.0f / group_scale;
  uint32x2 packed;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    packed[i] = to_fp8x4(values[4 * i] * inverse, values[4 * i + 1] * inverse, values[4 * i + 2] * inverse,
                         values[4 * i + 3] * inverse);
  if (!stores) return;
  *(uint32x2 *)codes = packed;
  if (lane_id() % GROUP_LANES == 0) *scale = group_scale;
}
