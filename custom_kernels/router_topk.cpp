// Experts of one row and their weights, ranked by counting which scores come before each one.
// EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS and RENORMALIZE are compile-time constants.
#include "cpu.h"

constexpr int GROUP_EXPERTS = EXPERTS / GROUPS;

// How many of `count` keys come before key `index` in descending order, equal ones by index.
static int rank_of(const float *keys, int count, int index) {
  int rank = 0;
  for (int other = 0; other < count; ++other)
    rank += keys[other] > keys[index] || (keys[other] == keys[index] && other < index);
  return rank;
}

extern "C" void router_topk(BUFFER(logits), BUFFER(correction_bias), BUFFER(ids), BUFFER(weights),
                            int64 scaling_bits, int64 row, int64, int64) {
  const float *logits = POINTER(const float, logits) + row * EXPERTS, *bias = POINTER(const float, correction_bias);
  int *ids = POINTER(int, ids) + row * (TOPK + SHARED_EXPERTS);
  float *weights = POINTER(float, weights) + row * (TOPK + SHARED_EXPERTS);
  float scores[EXPERTS], keys[EXPERTS], scaling = bits_to_float(uint32(scaling_bits)), sum = 0;
  constexpr float LOWEST = -__builtin_inff();
  for (int expert = 0; expert < EXPERTS; ++expert) {
    scores[expert] = 1.0f / (1.0f + exponential(-logits[expert]));
    float key = scores[expert] + bias[expert];
    keys[expert] = key == key ? key : LOWEST;
  }
  if (GROUPS > 1) {
    float best_two[GROUPS];
    for (int group = 0; group < GROUPS; ++group) {
      float first = LOWEST, second = LOWEST;
      for (int i = 0; i < GROUP_EXPERTS; ++i) {
        float key = keys[group * GROUP_EXPERTS + i];
        second = key > first ? first : key > second ? key : second;
        first = key > first ? key : first;
      }
      best_two[group] = GROUP_EXPERTS > 1 ? first + second : first;
    }
    for (int expert = 0; expert < EXPERTS; ++expert)
      if (rank_of(best_two, GROUPS, expert / GROUP_EXPERTS) >= TOPK_GROUPS) keys[expert] = LOWEST;
  }
  for (int expert = 0; expert < EXPERTS; ++expert) {
    int rank = rank_of(keys, EXPERTS, expert);
    if (rank >= TOPK) continue;
    ids[rank] = expert;
    weights[rank] = scores[expert];
  }
  for (int i = 0; i < TOPK; ++i) sum += weights[i];
  for (int i = 0; i < TOPK; ++i) weights[i] *= RENORMALIZE ? scaling / sum : scaling;
  for (int i = 0; i < SHARED_EXPERTS; ++i) {
    ids[TOPK + i] = EXPERTS + i;
    weights[TOPK + i] = 1.0f;
  }
}
