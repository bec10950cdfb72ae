// Rows scattered in global memory, on their way into workgroup memory. LOADS loads of 16 bytes a lane.
//
// AMD's lanes hold in registers what is under way, while the rows before are still read. NVIDIA's copies go where they
// belong, which another tile's rows may not; but they need no registers.
#pragma once

#include "compiler.h"

#if defined(__AMDGCN__)
template <int LOADS> struct RowGather {
  static constexpr bool IN_REGISTERS = true;
  uint32x4 loads[LOADS];

  // Load i is of the 16 bytes at `source(i)`, and for `*place(i)`; zeros where there is no source.
  template <typename Source, typename Place>
  MEMBER void start(Source source, Place place) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      const uint8 *address = source(i);
      loads[i] = 0;
      if (address) loads[i] = *(const uint32x4 *)address;
    }
  }

  // Everything is in its place once the workgroup has met at a barrier after this.
  template <int LATER = 0, typename Place> MEMBER void finish(Place place) {
    static_assert(LATER == 0);
#pragma unroll
    for (int i = 0; i < LOADS; ++i) *place(i) = loads[i];
  }
};
#elif defined(__NVPTX__)
template <int LOADS> struct RowGather {
  static constexpr bool IN_REGISTERS = false;

  template <typename Source, typename Place>
  MEMBER void start(Source source, Place place) {
#pragma unroll
    for (int i = 0; i < LOADS; ++i) {
      const uint8 *address = source(i);
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(place(i))), "l"(address),
                   "r"(address ? 16 : 0)
                   : "memory");
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }

  // All but what the last LATER calls of `start` have started.
  template <int LATER = 0, typename Place> MEMBER void finish(Place) {
    asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory");
  }
};
#endif
