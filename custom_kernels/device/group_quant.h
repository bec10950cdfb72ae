// Group quantisation of activations: 128 columns share a scale; 16 lanes hold a group, 8 columns each.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int COLUMNS_PER_LANE = 8;
constexpr int GROUP_LANES = GROUP / COLUMNS_PER_LANE;
constexpr float ACTIVATION_SCALE_FLOOR = 1e-10f;

// The largest magnitude of a lane's columns. Magnitudes order as integers, with NaN above all.
DEVICE int largest_magnitude(const float (&values)[8]) {
  uint32 largest = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i)
    largest = Maximum::combine(largest, __builtin_bit_cast(uint32, values[i]) & 0x7FFFFFFF);
  return int(largest);
}

// Quantises a lane's columns of a group whose largest magnitude is `largest`: returns its scale, max(largest, smallest) /
// maximum; `packed` receives the codes, round(clamp(value * (1 / scale))).
DEVICE float quantize_columns(const float (&values)[8], int largest, float smallest, uint32x2 &packed) {
  float amax = __builtin_bit_cast(float, largest);
  float scale = (amax < smallest ? smallest : amax) / FP8_MAXIMUM, inverse = 1.0f / scale;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    packed[i] = to_fp8x4(values[4 * i] * inverse, values[4 * i + 1] * inverse, values[4 * i + 2] * inverse,
                         values[4 * i + 3] * inverse);
  return scale;
}

// Quantises this lane's columns of its group: `codes` receives their codes, and `scale` the group's scale from its first
// lane. All lanes of the wave must call; those with `stores` false leave memory alone.
DEVICE void quantize_group(const float (&values)[8], uint8 *codes, float *scale, bool stores) {
  uint32x2 packed;
  int largest = reduce_lanes<Maximum, GROUP_LANES>(largest_magnitude(values));
  float group_scale = quantize_columns(values, largest, ACTIVATION_SCALE_FLOOR, packed);
  if (!stores) return;
  *(uint32x2 *)codes = packed;
  if (lane_id() % GROUP_LANES == 0) *scale = group_scale;
}
