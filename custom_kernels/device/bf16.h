// bfloat16 in memory, float32 in registers. Stores round to nearest even.
#pragma once

#include "compiler.h"

typedef uint16 bf16;

DEVICE float from_bf16(bf16 stored) { return __builtin_bit_cast(float, uint32(stored) << 16); }

// Integer rounding rather than a conversion instruction: gfx942 has none, and one form gives one result.
DEVICE bf16 to_bf16(float value) {
  uint32 bits = __builtin_bit_cast(uint32, value);
  uint32 rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return value != value ? 0x7FC0 : bf16(rounded);
}

// `value` as a bf16 tensor would hold it.
DEVICE float round_to_bf16(float value) { return from_bf16(to_bf16(value)); }

// Eight consecutive elements, 16-byte aligned.
DEVICE void load_bf16x8(const bf16 *source, float (&values)[8]) {
  uint32x4 packed = *(const uint32x4 *)source;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __builtin_bit_cast(float, packed[i] << 16);
    values[2 * i + 1] = __builtin_bit_cast(float, packed[i] & 0xFFFF0000);
  }
}

DEVICE void store_bf16x8(bf16 *target, const float (&values)[8]) {
  uint32x4 packed;
#pragma unroll
  for (int i = 0; i < 4; ++i) packed[i] = to_bf16(values[2 * i]) | uint32(to_bf16(values[2 * i + 1])) << 16;
  *(uint32x4 *)target = packed;
}
