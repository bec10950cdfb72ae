// float32 functions that a bare compiler has no library for.
#pragma once

#include "compiler.h"

// 2^x, within 2 units in the last place for x <= 0; results below 2^-126 may be 0.
DEVICE float exponential2(float x) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_exp2f(x);
#else
  return __nvvm_ex2_approx_ftz_f(x);
#endif
}

// log2(x) of a positive normal x, with an absolute or a relative error below 2^-21.
DEVICE float logarithm2(float x) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_logf(x);
#else
  return __nvvm_lg2_approx_ftz_f(x);
#endif
}

// e^x, within 2 units in the last place; overflows to infinity and underflows to 0.
DEVICE float exponential(float x) {
  constexpr float LOG2_E = 1.44269504f, LOG2_E_REST = 1.92596299e-8f, FAR = 150.0f;
  x = x > FAR ? FAR : x;
  x = x < -FAR ? -FAR : x;
  float power = x * LOG2_E;
  // x * log2(e) - power: rounding a large power would otherwise be an error as large in the result.
  float rest = __builtin_fmaf(x, LOG2_E, -power) + x * LOG2_E_REST;
  float whole = __builtin_rintf(power);
  float mantissa = exponential2((power - whole) + rest);
  // Two factors, so that neither leaves the range where the result is denormal or infinite.
  int exponent = whole < FAR * 2 ? int(whole) : 0;  // no conversion of a NaN
  int first = exponent / 2, second = exponent - first;
  return mantissa * __builtin_bit_cast(float, (first + 127) << 23) *
         __builtin_bit_cast(float, (second + 127) << 23);
}

DEVICE float square_root(float x) {
#if defined(__NVPTX__)
  return __nvvm_sqrt_rn_f(x);
#else
  return __builtin_sqrtf(x);
#endif
}
