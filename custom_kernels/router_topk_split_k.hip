// Experts of each row and their weights, from the partial sums of its logits that add_normed_linear_split_k makes: they
// are added up in the slices' order, and divided by the row's size.
//
// EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS, RENORMALIZE, ROWS and SLICES are compile-time constants.
#include "reduce.h"
#include "routing.h"
#include "split_k.h"

using Experts = Routing<EXPERTS, GROUPS, TOPK_GROUPS, TOPK, SHARED_EXPERTS, RENORMALIZE>;
using Partials = SplitKPartials<ROWS, EXPERTS>;

DEVICE void router_topk_split_k(EarlyWorkgroup workgroup, Experts::Shared &shared, const float *partials,
                                const float *correction_bias, int *ids, float *weights, int epsilon_bits,
                                int scaling_bits) {
  static_assert(WAVE_SIZE % SLICES == 0);
  int row = workgroup.x;
  Experts::OwnValues biases, logits = {};
  Experts::load_biases(correction_bias, biases);
  workgroup.await_inputs();
  float mean_square = partials[Partials::mean_square(lane_id() % SLICES, row)];
#pragma unroll
  for (int i = 0; i < Experts::OWN; ++i) {
    int expert = Experts::own_expert(i) < EXPERTS ? Experts::own_expert(i) : EXPERTS - 1;
    float terms[SLICES];
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) terms[slice] = partials[Partials::term(slice, row, expert)];
#pragma unroll
    for (int slice = 0; slice < SLICES; ++slice) logits[i] += terms[slice];
  }
  mean_square = reduce_lanes<Sum, SLICES>(mean_square);
  float factor = 1.0f / square_root(mean_square + __builtin_bit_cast(float, epsilon_bits));
#pragma unroll
  for (int i = 0; i < Experts::OWN; ++i) logits[i] *= factor;
  Experts::route(shared, row, logits, biases, ids, weights, __builtin_bit_cast(float, scaling_bits));
}
