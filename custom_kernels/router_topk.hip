// Experts of one row and their weights: a workgroup ranks EXPERTS scores by counting which come before each one.
// GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS and RENORMALIZE are compile-time constants.
#include "float_math.h"
#include "layouts.h"

constexpr int THREADS = 256;
constexpr int GROUP_EXPERTS = EXPERTS / GROUPS;

// How many of `count` keys come before key `index` in descending order, equal ones by index.
DEVICE int rank_of(const float *keys, int count, int index) {
  int rank = 0;
  for (int other = 0; other < count; ++other)
    rank += keys[other] > keys[index] || (keys[other] == keys[index] && other < index);
  return rank;
}

struct Shared {
  float scores[EXPERTS], keys[EXPERTS], best_two[GROUPS], chosen[TOPK];
};

DEVICE void route_row(Shared &shared, const float *logits, const float *correction_bias, int *ids, float *weights, float scaling) {
  auto &[scores, keys, best_two, chosen] = shared;
  constexpr float LOWEST = -__builtin_inff();
  for (int expert = thread_id(); expert < EXPERTS; expert += THREADS) {
    float score = 1.0f / (1.0f + exponential(-logits[expert])), key = score + correction_bias[expert];
    scores[expert] = score;
    keys[expert] = key == key ? key : LOWEST;
  }
  barrier();
  if (GROUPS > 1) {
    for (int group = thread_id(); group < GROUPS; group += THREADS) {
      float first = LOWEST, second = LOWEST;
      for (int i = 0; i < GROUP_EXPERTS; ++i) {
        float key = keys[group * GROUP_EXPERTS + i];
        second = key > first ? first : key > second ? key : second;
        first = key > first ? key : first;
      }
      best_two[group] = GROUP_EXPERTS > 1 ? first + second : first;
    }
    barrier();
    for (int expert = thread_id(); expert < EXPERTS; expert += THREADS)
      if (rank_of(best_two, GROUPS, expert / GROUP_EXPERTS) >= TOPK_GROUPS) keys[expert] = LOWEST;
    barrier();
  }
  for (int expert = thread_id(); expert < EXPERTS; expert += THREADS) {
    int rank = rank_of(keys, EXPERTS, expert);
    if (rank < TOPK) {
      ids[rank] = expert;
      chosen[rank] = scores[expert];
    }
  }
  barrier();
  float sum = 0;
  for (int i = 0; i < TOPK; ++i) sum += chosen[i];
  int index = thread_id();
  if (index < TOPK) weights[index] = chosen[index] * (RENORMALIZE ? scaling / sum : scaling);
  if (index < SHARED_EXPERTS) {
    ids[TOPK + index] = EXPERTS + index;
    weights[TOPK + index] = 1.0f;
  }
}

DEVICE void router_topk(Workgroup workgroup, Shared &shared, const float *logits, const float *correction_bias, int *ids,
                        float *weights, int scaling_bits) {
  int64 row = workgroup.x;
  route_row(shared, logits + row * EXPERTS, correction_bias, ids + row * (TOPK + SHARED_EXPERTS),
            weights + row * (TOPK + SHARED_EXPERTS), __builtin_bit_cast(float, scaling_bits));
}
