// Experts of one row and their weights. The experts are cut into segments: the groups, or 32 experts where there is
// one group. Counting which keys of the segment come before each one gives the best of every segment, and counting
// again among those gives the best of all.
#pragma once

#include "float_math.h"
#include "layouts.h"
#include "pipeline.h"

template <int EXPERTS, int GROUPS, int TOPK_GROUPS, int TOPK, int SHARED_EXPERTS, bool RENORMALIZE> struct Routing {
  static constexpr int THREADS = 256;
  static constexpr int SEGMENT = GROUPS > 1 ? EXPERTS / GROUPS : 32;
  static constexpr int SEGMENTS = divide_up(EXPERTS, SEGMENT);
  // Of a segment, the candidates: as many as could be chosen, and the two that a group counts by.
  static constexpr int WANTED = GROUPS > 1 && TOPK < 2 ? 2 : TOPK;
  static constexpr int BEST = WANTED < SEGMENT ? WANTED : SEGMENT;
  static constexpr int CANDIDATES = SEGMENTS * BEST;
  static constexpr float LOWEST = -__builtin_inff();

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
  static MEMBER int rank_in_segment(const float *keys, int index) {
    float key = keys[index];
    int rank = 0;
#pragma unroll
    for (int other = 0; other < SEGMENT; ++other) rank += keys[other] > key || (keys[other] == key && other < index);
    return rank;
  }

  // How many candidates come before `own` in descending order, equal ones by expert.
  static MEMBER int rank_of(const Candidate (&candidates)[CANDIDATES], Candidate own) {
    int rank = 0;
#pragma unroll
    for (int i = 0; i < CANDIDATES; ++i) {
      Candidate other = candidates[i];
      rank += other.key > own.key || (other.key == own.key && other.expert < own.expert);
    }
    return rank;
  }

  // A group counts by the sum of its two best keys.
  static MEMBER float group_score(const Candidate *best) { return BEST > 1 ? best[0].key + best[1].key : best[0].key; }

  static MEMBER bool is_kept(const Candidate (&best)[CANDIDATES], int group) {
    float score = group_score(best + group * BEST);
    int rank = 0;
#pragma unroll
    for (int other = 0; other < GROUPS; ++other) {
      float other_score = group_score(best + other * BEST);
      rank += other_score > score || (other_score == score && other < group);
    }
    return rank < TOPK_GROUPS;
  }

  // A number for each of a thread's experts.
  static constexpr int OWN = divide_up(SEGMENTS * SEGMENT, THREADS);
  using OwnValues = float[OWN];
  static MEMBER int own_expert(int i) { return i * THREADS + thread_id(); }

  static MEMBER void load_biases(const float *correction_bias, OwnValues &biases) {
#pragma unroll
    for (int i = 0; i < OWN; ++i) biases[i] = correction_bias[own_expert(i) < EXPERTS ? own_expert(i) : EXPERTS - 1];
  }

  // Puts row `row` into `ids` and `weights`, [rows, TOPK + SHARED_EXPERTS]. `logits` past the last expert are ignored.
  static MEMBER void route(Shared &shared, int64 row, const OwnValues &logits, const OwnValues &biases, int *ids,
                           float *weights, float scaling) {
    ids += row * (TOPK + SHARED_EXPERTS);
    weights += row * (TOPK + SHARED_EXPERTS);
    auto &[scores, keys, best, allowed, chosen] = shared;
#pragma unroll
    for (int i = 0; i < OWN; ++i) {
      int expert = own_expert(i);
      if (expert < SEGMENTS * SEGMENT) keys[expert] = LOWEST;
      if (expert >= EXPERTS) continue;
      float score = 1.0f / (1.0f + exponential(-logits[i])), key = score + biases[i];
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
};
