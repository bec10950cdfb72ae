// Values that are equal in all lanes of a wave, and known to the compiler as such: branches and addresses from them
// are scalar where the chip has scalar registers.
#pragma once

#include "compiler.h"

// `value`, which must be equal in all lanes.
#if defined(__AMDGCN__)
DEVICE int uniform(int value) { return __builtin_amdgcn_readfirstlane(value); }
#elif defined(__NVPTX__)
DEVICE int uniform(int value) { return value; }
#endif

// `value` of lane `source`, which must be equal in all lanes. All lanes must take part.
#if defined(__AMDGCN__)
DEVICE int uniform_read(int value, int source) { return __builtin_amdgcn_readlane(value, source); }
#elif defined(__NVPTX__)
DEVICE int uniform_read(int value, int source) { return wave_read(value, source); }
#endif

// A bit per lane of a wave, the first lane's lowest.
#if defined(__AMDGCN__)
typedef uint64 LaneMask;
#elif defined(__NVPTX__)
typedef uint32 LaneMask;
#endif

// In which lanes `condition` holds. All lanes must take part.
#if defined(__AMDGCN__)
DEVICE LaneMask ballot(bool condition) { return __builtin_amdgcn_ballot_w64(condition); }
#elif defined(__NVPTX__)
DEVICE LaneMask ballot(bool condition) { return __nvvm_vote_ballot_sync(0xFFFFFFFF, condition); }
#endif
