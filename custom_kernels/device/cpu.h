// What CPU kernels share: how arguments arrive, FP8 E4M3FN and bfloat16 conversions, exp2.
//
// A CPU kernel is freestanding C++: no library, no globals, no thread-local state. It receives, for each binding,
// a base pointer and a byte offset (declare them with BUFFER, read them with POINTER), then the launch's constants
// and the workgroup's indices, all as 64-bit integers.
#pragma once

#include "layouts.h"

#define BUFFER(name) char *name##_base, int64 name##_offset
#define POINTER(type, name) reinterpret_cast<type *>(name##_base + name##_offset)

DEVICE float bits_to_float(uint32 bits) { return __builtin_bit_cast(float, bits); }
DEVICE uint32 float_to_bits(float value) { return __builtin_bit_cast(uint32, value); }

// E4M3FN. No denormal float32 appears on the way: the runtime's workers flush those to zero.
DEVICE float decode_fp8(uint8 code) {
  uint32 magnitude = code & 0x7F;
  float normal = bits_to_float((magnitude << 20) + (120 << 23));
  float value = magnitude < 8 ? float(int(magnitude)) * 0x1p-9f : normal;
  value = magnitude == 0x7F ? __builtin_nanf("") : value;
  return code & 0x80 ? -value : value;
}

DEVICE void decode_fp8(const uint8 *codes, float *values, int count) {
  for (int i = 0; i < count; ++i) values[i] = decode_fp8(codes[i]);
}

DEVICE float decode_bf16(uint16 code) { return bits_to_float(uint32(code) << 16); }

// Rounds to nearest even.
DEVICE uint16 encode_bf16(float value) {
  uint32 bits = float_to_bits(value);
  if (value != value) return 0x7FC0;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}

// 2^x for x <= 0, relative error below 2e-7; 0 below the normal range.
DEVICE float exp2_of_negative(float x) {
  if (!(x > -126.0f)) return x == x ? 0.0f : x;
  int whole = int(x - 0.5f);
  float f = x - float(whole);
  float p = 1.5403530e-4f;
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  return p * bits_to_float(uint32(whole + 127) << 23);
}

// log2 of a positive normal x, absolute error below 1e-6 where it is below 16; NaN stays.
DEVICE float log2_of(float x) {
  if (x != x) return x;
  uint32 bits = float_to_bits(x) + (127 << 23) - 0x3F3504F3;  // one more where the mantissa is above sqrt(2)
  float exponent = float(int(bits >> 23) - 127), m = bits_to_float((bits & 0x7FFFFF) + 0x3F3504F3);
  float s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
  float p = 3.2059890e-1f;
  p = p * s2 + 4.1219859e-1f;
  p = p * s2 + 5.7707802e-1f;
  p = p * s2 + 9.6179669e-1f;
  p = p * s2 + 2.8853901f;
  return exponent + s * p;
}

// e^x, relative error below 4e-7 for |x| below 80, saturating to infinity and zero beyond.
DEVICE float exponential(float x) {
  if (x != x) return x;
  if (x > 88.0f) return __builtin_inff();
  float magnitude = exp2_of_negative(-(x < 0 ? -x : x) * 1.44269504f);
  return x > 0 ? 1.0f / magnitude : magnitude;
}

// Rounds to nearest even and saturates at 448; NaN stays.
DEVICE uint8 encode_fp8(float value) {
  uint32 sign = float_to_bits(value) >> 24 & 0x80;
  float magnitude = bits_to_float(float_to_bits(value) & 0x7FFFFFFF);
  if (value != value) return 0x7F;
  if (magnitude > 448.0f) magnitude = 448.0f;
  uint32 bits = float_to_bits(magnitude);
  // Below 2^-6 codes are multiples of 2^-9, which adding 2^14 leaves in the lowest mantissa bits.
  uint32 subnormal = float_to_bits(magnitude + 0x1p14f) - float_to_bits(0x1p14f);
  uint32 normal = (bits + 0x7FFFF + (bits >> 20 & 1) >> 20) - (120 << 3);
  return sign | (magnitude < 0x1p-6f ? subnormal : normal);
}

// One group of 128 float32: 128 codes and the scale max(amax, floor) / maximum.
DEVICE float amax_of(const float *values, int count) {
  float amax = 0;
  for (int i = 0; i < count; ++i) {
    float magnitude = values[i] < 0 ? -values[i] : values[i];
    amax = magnitude > amax || magnitude != magnitude ? magnitude : amax;
  }
  return amax;
}

DEVICE void encode_scaled(const float *values, uint8 *codes, int count, float scale) {
  float inverse = 1.0f / scale;
  for (int i = 0; i < count; ++i) codes[i] = encode_fp8(values[i] * inverse);
}

constexpr float FP8_MAXIMUM = 448.0f;

// Quantises `columns` float32 of row `row` of `rows`, scales group-major.
DEVICE void quantize_row(const float *values, uint8 *codes, float *scales, int64 row, int64 rows, int64 columns) {
  for (int64 group = 0; group < columns / GROUP; ++group) {
    const float *part = values + group * GROUP;
    float amax = amax_of(part, GROUP), scale = (amax < 1e-10f ? 1e-10f : amax) / FP8_MAXIMUM;
    encode_scaled(part, codes + row * columns + group * GROUP, GROUP, scale);
    scales[group_major_scale_offset(row, group, rows)] = scale;
  }
}
