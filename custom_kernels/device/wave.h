// What the lanes of one wave tell each other.
#pragma once

#include "compiler.h"

constexpr uint64 ALL_LANES = WAVE_SIZE == 64 ? ~uint64(0) : (uint64(1) << (WAVE_SIZE % 64)) - 1;

// Bit i tells whether lane i of the wave called with `condition` true. All lanes must take part.
DEVICE uint64 wave_ballot(bool condition) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_ballot_w64(condition);
#else
  return __nvvm_vote_ballot_sync(0xFFFFFFFF, condition);
#endif
}

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

// The lanes whose `value`, of BITS bits, is this lane's. All lanes must take part.
template <int BITS> DEVICE uint64 lanes_alike(int value) {
  uint64 alike = ALL_LANES;
#pragma unroll
  for (int bit = 0; bit < BITS; ++bit) {
    bool set = value >> bit & 1;
    uint64 lanes = wave_ballot(set);
    alike &= set ? lanes : ~lanes;
  }
  return alike;
}

DEVICE uint64 lanes_below() { return (uint64(1) << lane_id()) - 1; }
