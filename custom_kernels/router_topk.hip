// Experts of each row and their weights (see routing.h).
//
// EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS and RENORMALIZE are compile-time constants.
#include "mailbox.h"
#include "routing.h"

using Experts = Routing<EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS, RENORMALIZE>;

DEVICE void router_topk(EarlyWorkgroup workgroup, Experts::Shared &shared, float *logits, const float *correction_bias,
                        int *ids, float *weights, int scaling_bits) {
  int64 row = workgroup.x;
  Experts::OwnValues biases, own = {};
  Experts::load_biases(correction_bias, biases);
  workgroup.await_inputs();
#pragma unroll
  for (int i = 0; i < Experts::OWN; ++i) {
    float *logit = logits + row_major_offset(row, Experts::own_expert(i), EXPERTS);
    if (Experts::own_expert(i) < EXPERTS) own[i] = workgroup.takes() ? take(logit) : *logit;
  }
  Experts::route(shared, row, own, biases, ids, weights, __builtin_bit_cast(float, scaling_bits));
}
