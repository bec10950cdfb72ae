// Workgroups that run at the same time on neighbouring compute units and read each other's workgroup memory (NVIDIA).
//
// A cluster's workgroups follow each other in the grid; the toolchain tells the driver how many they are. What follows
// is told by where a workgroup stands among SIZE that share a piece of work; a cluster may hold several such groups.
#pragma once

#include "compiler.h"

#if defined(__NVPTX__)
// All workgroups of the cluster that have not ended arrive. What one has written to its own memory before a barrier of
// its own can then be read by the others: nothing of it is under way, so that the arrival need not wait for the device.
DEVICE void cluster_barrier() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\n\tbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// What workgroup `index` of the SIZE holds where this one holds `local`.
template <int SIZE> DEVICE float4 read_neighbour(const float *local, int index) {
  uint32 first;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(first));
  float4 value;
  asm volatile(
      "{ .reg .b32 there; mapa.shared::cluster.u32 there, %4, %5;\n\t"
      "ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
      : "=f"(value[0]), "=f"(value[1]), "=f"(value[2]), "=f"(value[3])
      : "r"(shared_address(local)), "r"(first / SIZE * SIZE + index)
      : "memory");
  return value;
}
#endif
