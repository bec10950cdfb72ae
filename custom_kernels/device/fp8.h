// FP8 conversions of the chip's own format: E4M3FNUZ on gfx942, E4M3FN on gfx950 and sm_90.
//
// Encoding rounds to nearest even and saturates at +-FP8_MAXIMUM, infinities too; NaN stays.
#pragma once

#include "compiler.h"

#if defined(__gfx942__)
constexpr float FP8_MAXIMUM = 240.0f;
constexpr float FP8_INDEXER_QUERY_MAXIMUM = 224.0f;
#else
constexpr float FP8_MAXIMUM = 448.0f;
constexpr float FP8_INDEXER_QUERY_MAXIMUM = 448.0f;
#endif

#if defined(__AMDGCN__)
DEVICE float clamp_to_fp8(float value) {
  value = value > FP8_MAXIMUM ? FP8_MAXIMUM : value;
  return value < -FP8_MAXIMUM ? -FP8_MAXIMUM : value;
}

// Four values, the first in the lowest byte.
DEVICE uint32 to_fp8x4(float a, float b, float c, float d) {
  int packed = __builtin_amdgcn_cvt_pk_fp8_f32(clamp_to_fp8(a), clamp_to_fp8(b), 0, false);
  return __builtin_amdgcn_cvt_pk_fp8_f32(clamp_to_fp8(c), clamp_to_fp8(d), packed, true);
}

// Four values from four bytes, the lowest byte first.
DEVICE float4 from_fp8x4(uint32 packed) {
  float2 low = __builtin_amdgcn_cvt_pk_f32_fp8(packed, false);
  float2 high = __builtin_amdgcn_cvt_pk_f32_fp8(packed, true);
  return {low[0], low[1], high[0], high[1]};
}
#elif defined(__NVPTX__)
DEVICE uint16 to_fp8x2(float a, float b) {
  uint16 packed;
  // The instruction's first operand goes to the upper byte.
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(packed) : "f"(b), "f"(a));
  return packed;
}

// Four values, the first in the lowest byte.
DEVICE uint32 to_fp8x4(float a, float b, float c, float d) {
  return to_fp8x2(a, b) | uint32(to_fp8x2(c, d)) << 16;
}

DEVICE float2 from_fp8x2(uint16 packed) {
  uint32 halves;
  float low, high;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(packed));
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
      : "=f"(low), "=f"(high)
      : "r"(halves));
  return {low, high};
}

// Four values from four bytes, the lowest byte first.
DEVICE float4 from_fp8x4(uint32 packed) {
  float2 low = from_fp8x2(packed & 0xFFFF);
  float2 high = from_fp8x2(packed >> 16);
  return {low[0], low[1], high[0], high[1]};
}
#endif

DEVICE uint8 to_fp8(float value) { return to_fp8x4(value, 0, 0, 0) & 0xFF; }
DEVICE float from_fp8(uint8 stored) { return from_fp8x4(stored)[0]; }

// Sixteen values of one 16-byte load, in memory order.
DEVICE void from_fp8x16(uint32x4 packed, float (&values)[16]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float4 four = from_fp8x4(packed[i]);
#pragma unroll
    for (int j = 0; j < 4; ++j) values[4 * i + j] = four[j];
  }
}
