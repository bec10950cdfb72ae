// The base of a body's workgroup memory.
#pragma once

#include "compiler.h"

// `memory`, with its address in a register. NVIDIA's assembler otherwise works the address out wherever it is used,
// from a special register that takes long to read.
template <typename Memory> DEVICE Memory &based(Memory &memory) {
#if defined(__NVPTX__)
  typedef __attribute__((address_space(3))) Memory InWorkgroup;
  auto address = (uint32)(uint64)(InWorkgroup *)&memory;
  asm("" : "+r"(address));
  return *(Memory *)(InWorkgroup *)(uint64)address;
#else
  return memory;
#endif
}
