// Copies of contiguous bytes from global to workgroup memory by the copy engine of NVIDIA's sm_90: one lane asks for
// them, and nobody keeps registers for what is under way.
#pragma once

#include "compiler.h"

#if defined(__NVPTX__)
// The copy engine and `wgmma` see what this thread wrote to workgroup memory before.
DEVICE void publish_to_engines() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Where `memory` lies in the workgroup's own memory, in units of 16 bytes, as `wgmma` is told. In a cluster an address
// also says whose memory it is, in its upper bits.
DEVICE uint64 place_for_engines(const void *memory) { return shared_address(memory) % (1 << 18) / 16; }

// Whether the copies into a piece of workgroup memory have arrived, one after the other. One thread starts it before
// anybody uses it (and publishes that), and ends it before the memory serves for something else.
struct Arrival {
  uint64 state;
};

DEVICE void start(Arrival &arrival) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&arrival)) : "memory");
}

DEVICE void end(Arrival &arrival) {
  asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(shared_address(&arrival)) : "memory");
}

// Waits for copy `index`, counted from 0. Copy `index` - 1 must have been waited for, by whomever, and that be known.
DEVICE void wait_for(Arrival &arrival, int index) {
  asm volatile(
      "{ .reg .pred arrived;\n\t"
      "TRY: mbarrier.try_wait.parity.shared::cta.b64 arrived, [%0], %1;\n\t"
      "@!arrived bra TRY; }" ::"r"(shared_address(&arrival)),
      "r"(index & 1)
      : "memory");
}

// One thread orders a copy of BYTES, after the copy before has been waited for. Addresses and size are multiples of 16.
// What is copied is read once: it makes way first in the device's cache.
template <int BYTES> DEVICE void copy_in(uint8 (&target)[BYTES], const uint8 *source, Arrival &arrival) {
  asm volatile(
      "{ .reg .b64 once; createpolicy.fractional.L2::evict_first.b64 once, 1.0;\n\t"
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %3;\n\t"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%1], [%2], %3, [%0], once; }" ::"r"(shared_address(&arrival)),
      "r"(shared_address(&target)), "l"(source), "n"(BYTES)
      : "memory");
}
#endif
