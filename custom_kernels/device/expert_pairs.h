// The (row, expert) pairs of a routing, in the order of the router's ids, gathered by expert without sorting.
#pragma once

#include "compiler.h"

// Bit i tells whether lane i of the wave called with `condition` true. All lanes must take part.
DEVICE uint64 wave_ballot(bool condition) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_ballot_w64(condition);
#else
  return __nvvm_vote_ballot_sync(0xFFFFFFFF, condition);
#endif
}

// True if no pair before `pair` names the same expert. All lanes of the wave must take part.
DEVICE bool is_first_of_expert(const int *expert_ids, int pair) {
  int expert = expert_ids[pair];
  for (int start = 0; start < pair; start += WAVE_SIZE) {
    int candidate = start + lane_id();
    if (wave_ballot(candidate < pair && expert_ids[candidate] == expert)) return false;
  }
  return true;
}

// Numbers the pairs from `first` to `pairs` that name `expert`, writes the `most` numbered from `skip` on to
// `members` in order, and returns how many there are. Every wave must call; the first one writes.
DEVICE int list_pairs_of_expert(const int *expert_ids, int expert, int first, int pairs, int skip, int most,
                                int *members) {
  int count = 0;
  for (int start = first; start < pairs; start += WAVE_SIZE) {
    int candidate = start + lane_id();
    bool matches = candidate < pairs && expert_ids[candidate] == expert;
    uint64 all = wave_ballot(matches);
    int place = count + __builtin_popcountll(all & ((uint64(1) << lane_id()) - 1)) - skip;
    if (matches && wave_id() == 0 && place >= 0 && place < most) members[place] = candidate;
    count += __builtin_popcountll(all);
  }
  return count;
}
