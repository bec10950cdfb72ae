// float32 functions that a bare compiler has no library for.
#pragma once

#include "compiler.h"

// e^x, within 2 units in the last place; overflows to infinity and underflows to 0.
DEVICE float exponential(float x) {
  constexpr float LOG2_E = 1.44269504f, LOG2_E_REST = 1.92596299e-8f;
  float power = x * LOG2_E;
  // x * log2(e) - power, exactly enough: the rounding error of a large power would be multiplied by it.
  float rest = __builtin_fmaf(x, LOG2_E, -power) + x * LOG2_E_REST;
  float whole = __builtin_rintf(power);
  float fraction = (power - whole) + rest;
#if defined(__AMDGCN__)
  float mantissa = __builtin_amdgcn_exp2f(fraction);
#else
  float mantissa = __nvvm_ex2_approx_f(fraction);
#endif
  // Two steps, so that a denormal result is reached without the factor itself leaving the range.
  whole = whole > 256.0f ? 256.0f : (whole < -256.0f ? -256.0f : whole);
  int first = int(whole) / 2, second = int(whole) - first;
  return mantissa * __builtin_bit_cast(float, (first + 127) << 23) *
         __builtin_bit_cast(float, (second + 127) << 23);
}

// 2^x, within 2 units in the last place for x <= 0; results below 2^-126 may be 0.
DEVICE float exponential2(float x) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_exp2f(x);
#else
  return __nvvm_ex2_approx_ftz_f(x);
#endif
}

DEVICE float square_root(float x) {
#if defined(__NVPTX__)
  return __nvvm_sqrt_rn_f(x);
#else
  return __builtin_sqrtf(x);
#endif
}
