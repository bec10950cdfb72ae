// Sums of a product over the waves and workgroups that share it, and their way to the result (NVIDIA). A lane has, of
// PART_ROWS activation rows, the sums of two outputs of a band for two rows, [output][row], as matrix instructions give
// them.
#pragma once

#include "bf16.h"
#include "cluster_sums.h"
#include "mailbox.h"
#include "matrix.h"
#include "pipeline.h"
#include "wave.h"

#if defined(__NVPTX__)
// Two waves that share a band can add up half of an even number of parts each, before anything is sent.
template <int PARTS, int BAND_WAVES> constexpr bool ADDS_IN_PAIRS = BAND_WAVES == 2 && PARTS % 2 == 0;

// Of BANDS bands and PARTS times PART_ROWS rows; BAND_WAVES waves of each of SPLIT workgroups have a term of each, or a
// pair of them together.
template <int BANDS, int PARTS, int SPLIT, int BAND_WAVES>
using ProductSums =
    ClusterSums<BANDS * PARTS * WAVE_SIZE, SPLIT, SPLIT *(ADDS_IN_PAIRS<PARTS, BAND_WAVES> ? 1 : BAND_WAVES)>;

// What each wave of a pair gives the other.
template <int WAVES, int PARTS> using PairSums = float4[WAVES][PARTS / 2][WAVE_SIZE];

// The lane's sums of half of the parts, the `second` half or the first, of both waves of a pair. `sums_of(i)` are this
// one's of part i. All threads of the workgroup must call.
template <int PARTS, int WAVES, typename SumsOf>
DEVICE void add_pair(PairSums<WAVES, PARTS> &given, bool second, SumsOf sums_of, float4 (&sums)[PARTS / 2]) {
  constexpr int HALF = PARTS / 2;
#pragma unroll
  for (int i = 0; i < HALF; ++i) given[wave_id()][i][lane_id()] = second ? sums_of(i) : sums_of(HALF + i);
  barrier();
  int other = second ? wave_id() - WAVES / 2 : wave_id() + WAVES / 2;
#pragma unroll
  for (int i = 0; i < HALF; ++i) sums[i] = given[other][i][lane_id()] + (second ? sums_of(HALF + i) : sums_of(i));
}

// Stores or posts a lane's sums of part `index` / WAVE_SIZE % PARTS of a band with a neighbour's: pairs of outputs.
template <int ROWS, int PARTS>
DEVICE void store_sums(const Workgroup &workgroup, bf16 *result, int outputs, int first_output, int index, float4 sums) {
  int lane = index % WAVE_SIZE, part = index / WAVE_SIZE;
  bool second = lane / 4 % 2;
  int row = part % PARTS * PART_ROWS + lane % 4 * 2 + second, output = first_output + part / PARTS * TILE + lane / 8 * 2;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint32 own = to_bf16x2(sums[2 * half], sums[2 * half + 1]), other = wave_read(int(own), lane_id() ^ 4);
    uint32 pair = second ? other >> 16 | (own & 0xFFFF0000) : (own & 0xFFFF) | other << 16;
    if (row < ROWS && output < outputs)
      store_or_post(workgroup, result + row_major_offset(row, output + half * 8, outputs), pair);
  }
}

// Adds the terms, always in the same order: store(outputs, place, sums) with the `outputs` there are, or none where the
// lane has no sums. The lane has OWN terms, number `term` of parts `first` on, counted over all bands. All threads of the
// workgroup must call, which is number `slice` of a cluster that has met, or of none. `before_store` is called while terms
// are under way.
template <int OWN, int COUNT, int SPLIT, int TERMS, typename BeforeStore, typename Store>
DEVICE void add_products(ClusterSums<COUNT, SPLIT, TERMS> &sums, int slice, int first, int term,
                         const float4 (&terms)[OWN], int outputs, BeforeStore before_store, Store store) {
  auto place_of = [&](int i) INLINE { return (first + i) * WAVE_SIZE + lane_id(); };
  if constexpr (TERMS == 1) {
    before_store();
#pragma unroll
    for (int i = 0; i < OWN; ++i) store(outputs, place_of(i), terms[i]);
  } else {
    static_assert(COUNT % (SPLIT * 8) == 0 && SPLIT > 1);
#pragma unroll
    for (int i = 0; i < OWN; ++i) send_term(sums, slice, term, place_of(i), terms[i]);
    before_store();
    await_terms(sums);
    constexpr int THREADS = 256;
#pragma unroll
    for (int first = 0; first < sums.SHARE; first += THREADS) {
      int i = first + thread_id();
      bool exists = i < sums.SHARE;
      store(exists ? outputs : 0, slice * sums.SHARE + i, sum_of_terms(sums, exists ? i : 0));
    }
  }
}
#endif
