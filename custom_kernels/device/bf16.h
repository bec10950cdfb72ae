// bfloat16 in memory, float32 in registers. Stores round to nearest even.
#pragma once

#include "compiler.h"

typedef uint16 bf16;

DEVICE float from_bf16(bf16 stored) { return __builtin_bit_cast(float, uint32(stored) << 16); }

#if defined(__NVPTX__)
DEVICE bf16 to_bf16(float value) {
  bf16 rounded;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(rounded) : "f"(value));
  return rounded;
}

// Two elements, the first in the lower half.
DEVICE uint32 to_bf16x2(float first, float second) {
  uint32 packed;
  // The instruction's first operand goes to the upper half.
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(second), "f"(first));
  return packed;
}
#else
// Integer rounding rather than a conversion instruction: gfx942 has none, and one form gives one result.
DEVICE bf16 to_bf16(float value) {
  uint32 bits = __builtin_bit_cast(uint32, value);
  uint32 rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
  return value != value ? 0x7FC0 : bf16(rounded);
}

// Two elements, the first in the lower half.
DEVICE uint32 to_bf16x2(float first, float second) { return to_bf16(first) | uint32(to_bf16(second)) << 16; }
#endif

// `value` as a bf16 tensor would hold it.
DEVICE float round_to_bf16(float value) { return from_bf16(to_bf16(value)); }

// The same of neighbours, which NVIDIA rounds in pairs.
template <int COUNT> DEVICE void round_to_bf16(float (&values)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i += 2) {
#if defined(__NVPTX__)
    uint32 packed = to_bf16x2(values[i], values[i + 1]);
    values[i] = __builtin_bit_cast(float, packed << 16);
    values[i + 1] = __builtin_bit_cast(float, packed & 0xFFFF0000);
#else
    values[i] = round_to_bf16(values[i]), values[i + 1] = round_to_bf16(values[i + 1]);
#endif
  }
}

// Eight elements, as they lie in memory.
DEVICE void unpack_bf16x8(uint32x4 packed, float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __builtin_bit_cast(float, packed[i] << 16);
    values[2 * i + 1] = __builtin_bit_cast(float, packed[i] & 0xFFFF0000);
  }
}

// Eight consecutive elements, 16-byte aligned.
DEVICE void load_bf16x8(const bf16 *source, float (&values)[8]) { unpack_bf16x8(*(const uint32x4 *)source, values); }

DEVICE uint32x4 pack_bf16x8(const float (&values)[8]) {
  uint32x4 packed;
#pragma unroll
  for (int i = 0; i < 4; ++i) packed[i] = to_bf16x2(values[2 * i], values[2 * i + 1]);
  return packed;
}

DEVICE void store_bf16x8(bf16 *target, const float (&values)[8]) { *(uint32x4 *)target = pack_bf16x8(values); }
