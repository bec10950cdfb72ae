// Experts of one row and their weights. The experts are cut into segments: the groups, or 32 experts where there is
// one group. Counting which keys of the segment come before each one gives the best of every segment, and counting
// again among those gives the best of all.
//
// EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS and RENORMALIZE are compile-time constants.
#include "float_math.h"
#include "layouts.h"
#include "mailbox.h"
#include "pipeline.h"

constexpr int THREADS = 256;
constexpr int SEGMENT = GROUPS > 1 ? EXPERTS / GROUPS : 32;
constexpr int SEGMENTS = divide_up(EXPERTS, SEGMENT);
// Of a segment, the candidates: as many as could be chosen, and the two that a group counts by.
constexpr int WANTED = GROUPS > 1 && TOPK < 2 ? 2 : TOPK;
constexpr int BEST = WANTED < SEGMENT ? WANTED : SEGMENT;
constexpr int CANDIDATES = SEGMENTS * BEST;
constexpr float LOWEST = -__builtin_inff();

struct Candidate {
  float key;
  int expert;
};

struct Shared {
  float scores[EXPERTS];
  alignas(16) float keys[SEGMENTS * SEGMENT];  // LOWEST beyond the last expert
  alignas(16) Candidate best[CANDIDATES];      // by segment, in descending order
  alignas(16) Candidate allowed[CANDIDATES];   // the same without the groups that are left out
  float chosen[TOPK];
};

// How many of a segment's `keys` come before the one at `index` in descending order, equal ones by index.
DEVICE int rank_in_segment(const float *keys, int index) {
  float key = keys[index];
  int rank = 0;
#pragma unroll
  for (int other = 0; other < SEGMENT; ++other) rank += keys[other] > key || (keys[other] == key && other < index);
  return rank;
}

// How many candidates come before `own` in descending order, equal ones by expert.
DEVICE int rank_of(const Candidate (&candidates)[CANDIDATES], Candidate own) {
  int rank = 0;
#pragma unroll
  for (int i = 0; i < CANDIDATES; ++i) {
    Candidate other = candidates[i];
    rank += other.key > own.key || (other.key == own.key && other.expert < own.expert);
  }
  return rank;
}

// A group counts by the sum of its two best keys.
DEVICE float group_score(const Candidate *best) { return BEST > 1 ? best[0].key + best[1].key : best[0].key; }

DEVICE bool is_kept(const Candidate (&best)[CANDIDATES], int group) {
  float score = group_score(best + group * BEST);
  int rank = 0;
#pragma unroll
  for (int other = 0; other < GROUPS; ++other) {
    float other_score = group_score(best + other * BEST);
    rank += other_score > score || (other_score == score && other < group);
  }
  return rank < TOPK_GROUPS;
}

// Of each thread's experts.
struct Biases {
  static constexpr int COUNT = divide_up(SEGMENTS * SEGMENT, THREADS);
  float bias[COUNT];
};

DEVICE Biases load_biases(const float *correction_bias) {
  Biases biases;
#pragma unroll
  for (int i = 0; i < biases.COUNT; ++i) {
    int expert = i * THREADS + thread_id();
    biases.bias[i] = correction_bias[expert < EXPERTS ? expert : EXPERTS - 1];
  }
  return biases;
}

// `logit_of(expert)` is called once for each.
template <typename LogitOf>
DEVICE void route_row(Shared &shared, LogitOf logit_of, const Biases &biases, int *ids, float *weights, float scaling) {
  auto &[scores, keys, best, allowed, chosen] = shared;
#pragma unroll
  for (int i = 0; i < biases.COUNT; ++i) {
    int expert = i * THREADS + thread_id();
    if (expert < SEGMENTS * SEGMENT) keys[expert] = LOWEST;
    if (expert >= EXPERTS) continue;
    float score = 1.0f / (1.0f + exponential(-logit_of(expert))), key = score + biases.bias[i];
    scores[expert] = score;
    if (key == key) keys[expert] = key;
  }
  barrier();
  for (int expert = thread_id(); expert < SEGMENTS * SEGMENT; expert += THREADS) {
    int segment = expert / SEGMENT, rank = rank_in_segment(keys + segment * SEGMENT, expert % SEGMENT);
    if (rank < BEST) best[segment * BEST + rank] = {keys[expert], expert};
  }
  barrier();
  if constexpr (GROUPS > 1) {
    for (int i = thread_id(); i < CANDIDATES; i += THREADS) {
      int group = i / BEST;
      // All experts of a group that is left out are equally low, so its first ones are its best.
      allowed[i] = is_kept(best, group) ? best[i] : Candidate{LOWEST, group * SEGMENT + i % BEST};
    }
    barrier();
  }
  auto &candidates = GROUPS > 1 ? allowed : best;
  for (int i = thread_id(); i < CANDIDATES; i += THREADS) {
    int expert = candidates[i].expert, rank = rank_of(candidates, candidates[i]);
    if (rank < TOPK) {
      ids[rank] = expert;
      chosen[rank] = scores[expert];
    }
  }
  barrier();
  float sum = 0;
#pragma unroll
  for (int i = 0; i < TOPK; ++i) sum += chosen[i];
  int index = thread_id();
  if (index < TOPK) weights[index] = chosen[index] * (RENORMALIZE ? scaling / sum : scaling);
  if (index < SHARED_EXPERTS) {
    ids[TOPK + index] = EXPERTS + index;
    weights[TOPK + index] = 1.0f;
  }
}

DEVICE void router_topk(EarlyWorkgroup workgroup, Shared &shared, float *logits, const float *correction_bias, int *ids,
                        float *weights, int scaling_bits) {
  int64 row = workgroup.x;
  Biases biases = load_biases(correction_bias);
  workgroup.await_inputs();
  auto logit_of = [&](int expert) INLINE {
    float *logit = logits + row_major_offset(row, expert, EXPERTS);
    return workgroup.takes() ? take(logit) : *logit;
  };
  route_row(shared, logit_of, biases, ids + row * (TOPK + SHARED_EXPERTS),
            weights + row * (TOPK + SHARED_EXPERTS), __builtin_bit_cast(float, scaling_bits));
}
