// Quantisation of one indexer head of 128 elements: 8 consecutive ones in each of 16 lanes, one scale.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int HEAD_COLUMNS_PER_LANE = 8;
constexpr int HEAD_LANES = INDEXER_HEAD_DIM / HEAD_COLUMNS_PER_LANE;
constexpr float INDEXER_SCALE_FLOOR = 1e-4f;

// The least power of two not below a positive normal `scale`, by its exponent bits; infinity and NaN stay.
DEVICE float round_up_to_power_of_two(float scale) {
  uint32 bits = (__builtin_bit_cast(uint32, scale) + 0x7FFFFF) & 0x7F800000;
  return scale < __builtin_inff() ? __builtin_bit_cast(float, bits) : scale;
}

// scale = max(amax, 1e-4) / maximum, rounded up to a power of two if asked;
// code = round(clamp(value * (1 / scale))). Returns the head's scale in all its lanes, and this lane's codes.
// All lanes of the wave must call.
template <bool TO_POWER_OF_TWO>
DEVICE float quantize_head(const float (&values)[8], float maximum, uint32x2 &codes) {
  int amax_bits = 0;  // magnitudes order as integers, with NaN above all
#pragma unroll
  for (int i = 0; i < 8; ++i)
    amax_bits = Maximum::combine(amax_bits, __builtin_bit_cast(int, values[i]) & 0x7FFFFFFF);
  float amax = __builtin_bit_cast(float, reduce_lanes<Maximum, HEAD_LANES>(amax_bits));
  float scale = (amax < INDEXER_SCALE_FLOOR ? INDEXER_SCALE_FLOOR : amax) / maximum;
  if (TO_POWER_OF_TWO) scale = round_up_to_power_of_two(scale);
  float inverse = 1.0f / scale;
#pragma unroll
  for (int i = 0; i < 2; ++i)
    codes[i] = to_fp8x4(values[4 * i] * inverse, values[4 * i + 1] * inverse, values[4 * i + 2] * inverse,
                        values[4 * i + 3] * inverse);
  return scale;
}
