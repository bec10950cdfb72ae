// Loads of what a kernel reads once, such as weights: no cache keeps it in the place of what is read again.
#pragma once

#include "compiler.h"

// Sixteen bytes that nothing writes while the kernel runs.
DEVICE uint32x4 load_once(const uint8 *source) {
#if defined(__AMDGCN__)
  return __builtin_nontemporal_load((const uint32x4 *)source);
#elif defined(__NVPTX__)
  uint32 a, b, c, d;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(a), "=r"(b), "=r"(c), "=r"(d)
               : "l"(source));
  return {a, b, c, d};
#endif
}
