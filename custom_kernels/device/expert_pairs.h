// The (row, expert) pairs of a routing, gathered by expert in workgroup memory.
//
// A stable counting sort: the result depends on nothing but the ids. Every workgroup makes its own copy, which
// costs it one read of the ids; there is no other dispatch to make it in.
#pragma once

#include "matrix.h"
#include "reduce.h"
#include "wave.h"

constexpr int GATHER_THREADS = 256;

// At most PART_ROWS pairs of one expert, which the matrix unit multiplies together.
struct Chunk {
  uint16 expert;
  uint16 first;     // place of its first pair in ExpertPairs::pairs
  uint16 siblings;  // chunks of the expert
  uint8 index;      // among them
  uint8 count;      // of pairs
};

// Workgroup memory. `chunk[0 .. chunks)` are in order of their experts; `pairs` in order of their experts, those of
// one expert ascending.
template <int EXPERTS, int PAIRS> struct ExpertPairs {
  Chunk chunk[PAIRS];
  uint16 pairs[PAIRS];
  uint16 scratch[2][PAIRS];  // for `gather_pairs` alone: free afterwards
  int chunks;
  int start[EXPERTS];  // place of an expert's first pair in `pairs`; the number of its pairs at first
  OfWaves<GATHER_THREADS, int> of_wave;

  static_assert(PAIRS <= 255 * PART_ROWS);
};

// Pair `i` of `chunk`, or its last one.
template <int EXPERTS, int PAIRS>
DEVICE int pair_of(const ExpertPairs<EXPERTS, PAIRS> &gathered, const Chunk &chunk, int i) {
  return gathered.pairs[chunk.first + (i < chunk.count ? i : chunk.count - 1)];
}

// `value`, given by the lanes that hold row i of a part of a fragment, for i = accumulator_column(c).
DEVICE float of_column(float value, int c) {
#if defined(__AMDGCN__)
  return value;  // those are the same lanes
#else
  return wave_read(value, accumulator_column(c) * (WAVE_SIZE / PART_ROWS));
#endif
}

static constexpr int bits_for(int values) { return values <= 1 ? 0 : 1 + bits_for((values + 1) / 2); }

// Counts the pairs of each expert in `start`, and how many earlier ones each pair has in `ranks`. One wave only, in
// order; the experts' counts must be zero.
template <int EXPERTS, int PAIRS>
DEVICE void rank_pairs(const uint16 *ids, int count, uint16 *ranks, int (&start)[EXPERTS]) {
  for (int first = 0; first < count; first += WAVE_SIZE) {
    int pair = first + lane_id(), id = pair < count ? ids[pair] : EXPERTS;
    uint64 alike = lanes_alike<bits_for(EXPERTS + 1)>(id), alike_below = alike & lanes_below();
    int before = id < EXPERTS ? start[id] : 0;
    wave_barrier();
    if (pair < count) {
      ranks[pair] = uint16(before + __builtin_popcountll(alike_below));
      if (alike_below == 0) start[id] = before + __builtin_popcountll(alike);
    }
    wave_barrier();
  }
}

// Gathers the first `count` of `expert_ids`, each below EXPERTS. All GATHER_THREADS threads must call.
template <int EXPERTS, int PAIRS>
DEVICE void gather_pairs(const int *expert_ids, int count, ExpertPairs<EXPERTS, PAIRS> &gathered) {
  auto &start = gathered.start;
  auto &[ids, ranks] = gathered.scratch;
  for (int expert = thread_id(); expert < EXPERTS; expert += GATHER_THREADS) start[expert] = 0;
#pragma unroll
  for (int first = 0; first < PAIRS; first += GATHER_THREADS)
    if (first + thread_id() < count) ids[first + thread_id()] = uint16(expert_ids[first + thread_id()]);
  barrier();
  if (uniform_wave_id() == 0) rank_pairs<EXPERTS, PAIRS>(ids, count, ranks, start);
  barrier();
  constexpr int EXPERTS_PER_THREAD = divide_up(EXPERTS, GATHER_THREADS);
  int own = 0;  // pairs in the low half, chunks in the high half
#pragma unroll
  for (int i = 0; i < EXPERTS_PER_THREAD; ++i) {
    int expert = thread_id() * EXPERTS_PER_THREAD + i;
    int pairs = expert < EXPERTS ? start[expert] : 0;
    own += pairs + (divide_up(pairs, PART_ROWS) << 16);
  }
  int total, before = inclusive_sum_of_workgroup<GATHER_THREADS>(own, total, gathered.of_wave) - own;
  int place = before & 0xFFFF, chunk = before >> 16;
#pragma unroll 1
  for (int i = 0; i < EXPERTS_PER_THREAD; ++i) {
    int expert = thread_id() * EXPERTS_PER_THREAD + i;
    int pairs = expert < EXPERTS ? start[expert] : 0, chunks = divide_up(pairs, PART_ROWS);
    if (pairs > 0) start[expert] = place;
#pragma unroll 1
    for (int j = 0; j < chunks; ++j) {
      int here = pairs - j * PART_ROWS < PART_ROWS ? pairs - j * PART_ROWS : PART_ROWS;
      gathered.chunk[chunk++] = {uint16(expert), uint16(place + j * PART_ROWS), uint16(chunks), uint8(j), uint8(here)};
    }
    place += pairs;
  }
  if (thread_id() == 0) gathered.chunks = total >> 16;
  barrier();
  for (int pair = thread_id(); pair < count; pair += GATHER_THREADS)
    gathered.pairs[start[ids[pair]] + ranks[pair]] = uint16(pair);
  barrier();
}
