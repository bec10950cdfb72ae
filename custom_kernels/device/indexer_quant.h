// Quantisation of one indexer head of 128 elements: 8 consecutive ones in each of 16 lanes, one scale.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int HEAD_COLUMNS_PER_LANE = 8;
constexpr int HEAD_LANES = INDEXER_HEAD_DIM / HEAD_COLUMNS_PER_LANE;
constexpr float INDEXER_SCALE_FLOOR = 1e-4f;

constexpr uint32 EXPONENT_BITS = 0x7F800000, MANTISSA_BITS = 0x007FFFFF;

// amax / maximum, and its inverse.
struct HeadScale {
  float scale, inverse;
};

DEVICE HeadScale scale_of_head(float amax, float maximum) { return {amax / maximum, 1.0f / (amax / maximum)}; }

// The quotient rounded up to a power of two, by its bits: the least power whose product with `maximum` is not below
// amax. To round the float32 quotient up gives the same, as that is a power only where amax is the product. `amax` is
// at least INDEXER_SCALE_FLOOR; infinity and NaN stay.
DEVICE HeadScale power_of_two_scale_of_head(float amax, float maximum) {
  uint32 of_maximum = __builtin_bit_cast(uint32, maximum), one = __builtin_bit_cast(uint32, 1.0f);
  uint32 rounded = __builtin_bit_cast(uint32, amax) + MANTISSA_BITS - (of_maximum & MANTISSA_BITS);
  uint32 scale = (rounded & EXPONENT_BITS) - (of_maximum & EXPONENT_BITS) + one;
  if (amax < __builtin_inff()) return {__builtin_bit_cast(float, scale), __builtin_bit_cast(float, 2 * one - scale)};
  return {amax, amax == __builtin_inff() ? 0.0f : amax};
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
  amax = amax < INDEXER_SCALE_FLOOR ? INDEXER_SCALE_FLOOR : amax;
  auto [scale, inverse] = TO_POWER_OF_TWO ? power_of_two_scale_of_head(amax, maximum) : scale_of_head(amax, maximum);
#pragma unroll
  for (int i = 0; i < 2; ++i)
    codes[i] = to_fp8x4(values[4 * i] * inverse, values[4 * i + 1] * inverse, values[4 * i + 2] * inverse,
                        values[4 * i + 3] * inverse);
  return scale;
}
