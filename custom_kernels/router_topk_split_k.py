"""Choose each row's experts from partial sums of its logits.

Source: `router_topk` of `add_normed_linear_bf16`, which is added up here, slice after slice.
"""

import torch

from predecode.custom_kernels import add_normed_linear_split_k, router_topk
from predecode.custom_kernels.add_normed_linear_bf16 import PROLOGUE
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.prologue import for_rows
from predecode.custom_kernels.skinny_tile import MOST_ROWS
from predecode.custom_kernels.split_k import (
    SLICES,
    SplitProduct,
    define_split_product,
    rows_of_partials,
    split_partials,
)
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target


def reference(
    partials: torch.Tensor, correction_bias: torch.Tensor, epsilon: float, *settings
) -> tuple[torch.Tensor, torch.Tensor]:
    """``settings`` are those of `router_topk`."""
    terms, mean_squares = split_partials(partials, correction_bias.shape[0])
    logits = terms.sum(0) * torch.rsqrt(mean_squares.sum(0) + epsilon)[:, None]
    return router_topk.reference(logits, correction_bias, *settings)


def _fake(partials, correction_bias, epsilon, *settings):
    experts = correction_bias.shape[0]
    logits = partials.new_empty((rows_of_partials(partials, experts), experts))
    return router_topk.OP.fake(logits, correction_bias, *settings)


def _launch(target: Target, call: Call) -> Launch | None:
    if not target.has_hip_kernels:
        return None
    rows = rows_of_partials(call["partials"], call["correction_bias"].shape[0])
    return Launch(
        source="router_topk_split_k.hip",
        symbol="router_topk_split_k",
        operands=("partials", "correction_bias"),
        constants=(float_bits(call["epsilon"]), float_bits(call["scaling"])),
        workgroups=(rows, 1, 1),
        workgroup_size=(router_topk.THREADS, 1, 1),
        defines=(*router_topk.routing_defines(call), ("ROWS", rows), ("SLICES", SLICES)),
        workgroups_per_unit=RESIDENT_PER_UNIT,
        reads_early=("correction_bias",),
    )


OP = define_op(
    "router_topk_split_k(Tensor partials, Tensor correction_bias, float epsilon, int topk, int groups, "
    "int topk_groups, bool renormalize, float scaling, int shared_experts) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
)
"""`router_topk` of the logits whose ``partials`` float32 [32, T * (E + 1)] `add_normed_linear_split_k` returns.

A row's logits are divided by ``sqrt(mean square + epsilon)``; the other arguments and the results are those of
`router_topk`.
"""

FEWEST_ROWS = 17
"""Rows from which whoever waits for the partial sums ends before a cluster that adds them up does, on an H200."""
PAYS = for_rows("x", FEWEST_ROWS, MOST_ROWS)
define_split_product(SplitProduct(add_normed_linear_split_k.OP, OP, PROLOGUE, "router_topk", "logits", PAYS))
