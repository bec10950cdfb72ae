// The (row, expert) pairs of a routing, gathered by expert in workgroup memory.
//
// A counting sort. Every workgroup makes its own copy, which costs it one read of the ids; there is no other dispatch
// to make it in. It stands before the first load of a weight, so it has few steps, each taken by all waves.
#pragma once

#include "histogram.h"
#include "matrix.h"

constexpr int GATHER_THREADS = 256;

// At most PART_ROWS pairs of one expert, which the matrix unit multiplies together.
struct Chunk {
  uint16 expert;
  uint16 first;     // place of its first pair in ExpertPairs::pairs
  uint16 siblings;  // chunks of the expert
  uint8 index;      // among them
  uint8 count;      // of pairs
};

// Workgroup memory. `chunk[0 .. chunks)` are in order of their experts, as are `pairs`; those of one expert ascend, so
// that workgroups which share an expert's chunks agree on what is in each.
template <int EXPERTS, int PAIRS> struct ExpertPairs {
  Chunk chunk[PAIRS];
  uint16 pairs[PAIRS];
  int chunks;
  int count[EXPERTS];       // of the expert's pairs
  uint32 rows[EXPERTS][2];  // a bit for each row that has the expert
  uint16 start[EXPERTS];    // place of its first pair in `pairs`

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

// Writes the chunks of an expert's `count` pairs, which `start` at a place of `pairs`; the first is chunk `index`.
template <int EXPERTS, int PAIRS>
DEVICE void put_chunks(ExpertPairs<EXPERTS, PAIRS> &gathered, int expert, int count, int start, int index) {
  int chunks = divide_up(count, PART_ROWS);
#pragma unroll 1
  for (int i = 0; i < chunks; ++i) {
    int here = count - i * PART_ROWS < PART_ROWS ? count - i * PART_ROWS : PART_ROWS;
    gathered.chunk[index + i] = {uint16(expert), uint16(start + i * PART_ROWS), uint16(chunks), uint8(i), uint8(here)};
  }
}

// How many pairs of the same expert come before `pair`, which row `row` has. Rows mostly have an expert once.
template <int EXPERTS, int PAIRS>
DEVICE int rank_of(const ExpertPairs<EXPERTS, PAIRS> &gathered, const int *expert_ids, int pair, int expert, int row) {
  auto &rows = gathered.rows[expert];
  if (__builtin_popcount(rows[0]) + __builtin_popcount(rows[1]) == gathered.count[expert]) {
    uint32 earlier = (1u << row % 32) - 1;
    if (row < 32) return __builtin_popcount(rows[0] & earlier);
    return __builtin_popcount(rows[0]) + __builtin_popcount(rows[1] & earlier);
  }
  int rank = 0;
#pragma unroll 8
  for (int i = 0; i < pair; ++i) rank += expert_ids[i] == expert;
  return rank;
}

// Gathers the first `count` of `expert_ids`, each below EXPERTS, of up to 64 rows. All GATHER_THREADS threads must call.
template <int EXPERTS_PER_ROW, int EXPERTS, int PAIRS>
DEVICE void gather_pairs(const int *expert_ids, int count, ExpertPairs<EXPERTS, PAIRS> &gathered) {
  constexpr int OWN_PAIRS = divide_up(PAIRS, GATHER_THREADS), OWN_EXPERTS = divide_up(EXPERTS, WAVE_SIZE);
  constexpr int WAVES = GATHER_THREADS / WAVE_SIZE;
  static_assert(PAIRS <= 64 * EXPERTS_PER_ROW);
  int ids[OWN_PAIRS];
#pragma unroll
  for (int i = 0; i < OWN_PAIRS; ++i) {
    int pair = i * GATHER_THREADS + thread_id();
    ids[i] = pair < count ? expert_ids[pair] : EXPERTS;
  }
  for (int expert = thread_id(); expert < EXPERTS; expert += GATHER_THREADS) {
    gathered.count[expert] = 0;
    gathered.rows[expert][0] = gathered.rows[expert][1] = 0;
  }
  barrier();
#pragma unroll
  for (int i = 0; i < OWN_PAIRS; ++i) {
    if (ids[i] == EXPERTS) continue;
    int row = (i * GATHER_THREADS + thread_id()) / EXPERTS_PER_ROW;
    add_shared(gathered.count[ids[i]], 1);
    set_shared(gathered.rows[ids[i]][row / 32], 1u << row % 32);
  }
  barrier();
  // Every wave counts all experts' pairs (in the low half) and chunks (in the high half), and puts a part of them.
  int of_expert[OWN_EXPERTS], own = 0;
#pragma unroll
  for (int i = 0; i < OWN_EXPERTS; ++i) {
    int expert = lane_id() * OWN_EXPERTS + i, pairs = expert < EXPERTS ? gathered.count[expert] : 0;
    own += of_expert[i] = pairs + (divide_up(pairs, PART_ROWS) << 16);
  }
  int upto = inclusive_sum_of_wave(own), before = upto - own;
#pragma unroll
  for (int i = 0; i < OWN_EXPERTS; ++i) {
    int expert = lane_id() * OWN_EXPERTS + i, pairs = of_expert[i] & 0xFFFF;
    if (i % WAVES == uniform_wave_id() && pairs > 0) {
      gathered.start[expert] = uint16(before);
      put_chunks(gathered, expert, pairs, before & 0xFFFF, before >> 16);
    }
    before += of_expert[i];
  }
  if (thread_id() == WAVE_SIZE - 1) gathered.chunks = upto >> 16;
  barrier();
#pragma unroll
  for (int i = 0; i < OWN_PAIRS; ++i) {
    if (ids[i] == EXPERTS) continue;
    int pair = i * GATHER_THREADS + thread_id();
    int rank = rank_of(gathered, expert_ids, pair, ids[i], pair / EXPERTS_PER_ROW);
    gathered.pairs[gathered.start[ids[i]] + rank] = uint16(pair);
  }
  barrier();
}
