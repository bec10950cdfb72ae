// Sums over the workgroups of a cluster: every workgroup sends its terms to those that add them up, each a share of the
// sums, and ends when it has added its own (NVIDIA). Nobody reads another's memory, so that nobody waits to end.
//
// A cluster's workgroups follow each other in the grid; the toolchain tells the driver how many they are. What follows
// is told by where a workgroup stands among SIZE that share a piece of work; a cluster may hold several such groups.
#pragma once

#include "bulk_copy.h"

#if defined(__NVPTX__)
// Workgroup memory of COUNT sums of four neighbouring floats over SIZE workgroups, each of which has as many of the TERMS
// terms of every sum.
template <int COUNT, int SIZE, int TERMS = SIZE> struct ClusterSums {
  static constexpr int SHARE = divide_up(COUNT, SIZE);
  // Its own terms of its own share a workgroup stores, if they are so many that to send them takes longer than to meet.
  static constexpr bool STORES_OWN = COUNT > 256;
  static constexpr int SENT_TERMS = STORES_OWN ? TERMS - TERMS / SIZE : TERMS;
  Arrival arrival;
  alignas(16) float4 terms[TERMS][SHARE];

  // The sums that workgroup `index` makes: how many, and the first.
  static DEVICE int count(int index) {
    int left = COUNT - first(index);
    return left < 0 ? 0 : left < SHARE ? left : SHARE;
  }
  static DEVICE int first(int index) { return index * SHARE; }
};

// Begins `arrival`, at which `bytes` are to be sent, by one thread.
DEVICE void expect_bytes(Arrival &arrival, int bytes) {
  start(arrival);
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&arrival)), "r"(bytes)
               : "memory");
}

// Where workgroup `index` of the SIZE that share a piece of work with this one stands in the cluster.
template <int SIZE> DEVICE uint32 rank_of(int index) {
  uint32 own;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(own));
  return own / SIZE * SIZE + index;
}

// Workgroup `index` of the SIZE can be sent to as soon as the others have called `await_cluster`. All threads call both,
// once.
template <int COUNT, int SIZE, int TERMS> DEVICE void join_cluster(ClusterSums<COUNT, SIZE, TERMS> &sums, int index) {
  if (thread_id() == 0) {
    expect_bytes(sums.arrival, sums.count(index) * sums.SENT_TERMS * int(sizeof(float4)));
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

DEVICE void await_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

// Workgroup memory of COUNT floats that each of SIZE workgroups tells all of them.
template <int COUNT, int SIZE> struct ClusterValues {
  Arrival arrival;
  float values[SIZE][COUNT];
};

// To be called by all threads before `join_cluster`: values can be sent when sums can.
template <int COUNT, int SIZE> DEVICE void expect_values(ClusterValues<COUNT, SIZE> &told) {
  if (thread_id() == 0) expect_bytes(told.arrival, COUNT * SIZE * int(sizeof(float)));
}

// Tells workgroup `to` of the SIZE value `i` of workgroup `index`, this one.
template <int COUNT, int SIZE>
DEVICE void send_value(ClusterValues<COUNT, SIZE> &told, int index, int to, int i, float value) {
  asm volatile(
      "{ .reg .b32 there, arrival;\n\t"
      "mapa.shared::cluster.u32 there, %0, %2;\n\t"
      "mapa.shared::cluster.u32 arrival, %1, %2;\n\t"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [there], %3, [arrival]; }" ::"r"(
          shared_address(&told.values[index][i])),
      "r"(shared_address(&told.arrival)), "r"(rank_of<SIZE>(to)), "f"(value)
      : "memory");
}

// Sends term `index` of sum `i` to the workgroup that adds it up; this is number `own`.
template <int COUNT, int SIZE, int TERMS>
DEVICE void send_term(ClusterSums<COUNT, SIZE, TERMS> &sums, int own, int index, int i, float4 term) {
  if (sums.STORES_OWN && i / sums.SHARE == own) {
    sums.terms[index][i % sums.SHARE] = term;
    return;
  }
  asm volatile(
      "{ .reg .b32 there, arrival;\n\t"
      "mapa.shared::cluster.u32 there, %0, %2;\n\t"
      "mapa.shared::cluster.u32 arrival, %1, %2;\n\t"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [there], {%3, %4, %5, %6}, [arrival]; }" ::"r"(
          shared_address(&sums.terms[index][i % sums.SHARE])),
      "r"(shared_address(&sums.arrival)), "r"(rank_of<SIZE>(i / sums.SHARE)), "f"(term[0]), "f"(term[1]),
      "f"(term[2]), "f"(term[3])
      : "memory");
}

// Returns when all that the workgroups of the cluster send to this one has arrived, of what counts at `arrival`.
DEVICE void await_sent(Arrival &arrival) {
  asm volatile(
      "{ .reg .pred arrived;\n\t"
      "TRY: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 arrived, [%0], 0;\n\t"
      "@!arrived bra TRY; }" ::"r"(shared_address(&arrival))
      : "memory");
}

// Returns when all terms of the workgroup's sums are there. All threads must call.
template <int COUNT, int SIZE, int TERMS> DEVICE void await_terms(ClusterSums<COUNT, SIZE, TERMS> &sums) {
  if (sums.STORES_OWN) barrier();
  await_sent(sums.arrival);
}

// The workgroup's `i`-th sum: terms in their order.
template <int COUNT, int SIZE, int TERMS>
DEVICE float4 sum_of_terms(const ClusterSums<COUNT, SIZE, TERMS> &sums, int i) {
  float4 sum = sums.terms[0][i];
#pragma unroll
  for (int other = 1; other < TERMS; ++other) sum += sums.terms[other][i];
  return sum;
}
#endif
