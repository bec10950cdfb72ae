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

// E4M3FN: the seven low bits, moved to a float's exponent and mantissa, are 2^-120 of the value.
DEVICE float decode_fp8(uint8 code) {
  uint32 magnitude = code & 0x7F;
  float value = bits_to_float(magnitude << 20) * 0x1p120f;
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
