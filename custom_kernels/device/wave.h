// What the lanes of one wave tell each other.
#pragma once

#include "compiler.h"

// The lanes of the wave arrive, and see each other's earlier writes to workgroup memory.
DEVICE void wave_barrier() {
#if defined(__AMDGCN__)
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
#else
  __nvvm_bar_warp_sync(0xFFFFFFFF);
#endif
}
