// Copies of 16 bytes a lane to workgroup memory that arrive in the order in which they are issued (AMD: at once), and
// matrices of 8 rows of 16 bytes out of it (NVIDIA). A copy reads memory fast if neighbouring lanes read neighbouring
// bytes, which the lanes of a fragment do not: matrices are copied as they lie, and dealt to the lanes afterwards.
#pragma once

#include "compiler.h"

#if defined(__AMDGCN__)
DEVICE void copy_16_bytes(void *target, const void *source) { *(uint32x4 *)target = *(const uint32x4 *)source; }
DEVICE void end_copies() {}
template <int LATER> DEVICE void await_copies() {}
#elif defined(__NVPTX__)
// From global to workgroup memory.
DEVICE void copy_16_bytes(void *target, const void *source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(target)), "l"(source) : "memory");
}

// The thread's copies since the last call become a group, perhaps an empty one.
DEVICE void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// All groups of the thread's copies have arrived, but for the last LATER.
template <int LATER> DEVICE void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(LATER) : "memory"); }

// Of four matrices, whose rows the lanes point at in turn, the lane's word of each: word `lane % 4` of row `lane / 4`.
DEVICE uint32x4 load_matrices(SharedAddress row) {
  uint32x4 words;
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "r"(row)
               : "memory");
  return words;
}
#endif
