"""Choose each row's experts and their weights, and append the shared experts.

Source: aiter `biased_grouped_topk` followed by SGLang's append of the shared experts. Scores stay float32 and a
weight is the expert's own score (aiter recovers it as biased score minus bias, in bfloat16).
"""

import torch

from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target

THREADS = 256


def _rank(keys: torch.Tensor) -> torch.Tensor:
    """int32 [..., n]: how many keys come before each one in descending order, ties by lower index first."""
    index = torch.arange(keys.shape[-1], dtype=torch.int32)
    mine, other = keys[..., :, None], keys[..., None, :]
    earlier = index[None, :] < index[:, None]
    before = torch.logical_or(other > mine, torch.logical_and(other == mine, earlier))
    return before.sum(-1, dtype=torch.int32)


def reference(
    logits: torch.Tensor,
    correction_bias: torch.Tensor,
    topk: int,
    groups: int,
    topk_groups: int,
    renormalize: bool,
    scaling: float,
    shared_experts: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    rows, experts = logits.shape
    scores = torch.sigmoid(logits)
    # A NaN ranks last, so that every id is an expert; its weight stays NaN.
    keys = torch.nan_to_num(scores + correction_bias, nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    if groups > 1:
        grouped = keys.reshape(rows, groups, experts // groups)
        best_two = torch.where(_rank(grouped) < 2, grouped, 0.0).sum(-1)
        kept = _rank(best_two) < topk_groups
        keys = torch.where(kept[..., None], grouped, float("-inf")).reshape(rows, experts)
    chosen = _rank(keys)[:, None, :] == torch.arange(topk, dtype=torch.int32)[None, :, None]
    ids = torch.where(chosen, torch.arange(experts, dtype=torch.int32), 0).sum(-1, dtype=torch.int32)
    weights = torch.where(chosen, scores[:, None, :], 0.0).sum(-1)
    factor = scaling / weights.sum(-1, keepdim=True) if renormalize else scaling
    weights = weights * factor
    if not shared_experts:
        return ids, weights
    shared_ids = torch.arange(experts, experts + shared_experts, dtype=torch.int32).expand(rows, -1)
    return torch.cat([ids, shared_ids], 1), torch.cat([weights, torch.ones(rows, shared_experts)], 1)


def _fake(logits, correction_bias, topk, groups, topk_groups, renormalize, scaling, shared_experts):
    shape = (logits.shape[0], topk + shared_experts)
    return logits.new_empty(shape, dtype=torch.int32), logits.new_empty(shape, dtype=torch.float32)


def routing_defines(call: Call) -> tuple[tuple[str, int], ...]:
    """The constants that a kernel which routes takes (see device/routing.h)."""
    return (
        ("EXPERTS", call["correction_bias"].shape[0]),
        ("GROUPS", call["groups"]),
        ("TOPK_GROUPS", call["topk_groups"]),
        ("TOPK", call["topk"]),
        ("SHARED_EXPERTS", call["shared_experts"]),
        ("RENORMALIZE", int(call["renormalize"])),
    )


def _launch(target: Target, call: Call) -> Launch | None:
    return Launch(
        source="router_topk.hip" if target.has_hip_kernels else "router_topk.cpp",
        symbol="router_topk",
        operands=("logits", "correction_bias"),
        constants=(float_bits(call["scaling"]),),
        workgroups=(call["logits"].shape[0], 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=routing_defines(call),
        reads_early=("correction_bias",),
        takes="logits",
    )


OP = define_op(
    "router_topk(Tensor logits, Tensor correction_bias, int topk, int groups, int topk_groups, bool renormalize, "
    "float scaling, int shared_experts) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
)


def router_topk(
    logits: torch.Tensor,
    correction_bias: torch.Tensor,
    *,
    topk: int,
    groups: int,
    topk_groups: int,
    renormalize: bool,
    scaling: float,
    shared_experts: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """``logits`` float32 [T, E], ``correction_bias`` float32 [E] -> ids int32 and weights float32 [T, topk + shared].

    ``s = sigmoid(logits)``, ``c = s + correction_bias``. With several ``groups`` only the experts of the
    ``topk_groups`` groups with the largest sum of their two best ``c`` take part. Ids are in descending ``c``,
    ties by lower id; weights are ``s``, divided by their sum if ``renormalize``, times ``scaling``. Shared
    experts follow as ids E, E+1, ... with weight one.
    """
    experts = logits.shape[1]
    if logits.dtype != torch.float32 or correction_bias.dtype != torch.float32:
        raise ValueError(
            f"router_topk: logits are {logits.dtype} and correction_bias {correction_bias.dtype}, expected float32"
        )
    if tuple(correction_bias.shape) != (experts,):
        raise ValueError(f"router_topk: correction_bias is {list(correction_bias.shape)}, expected [{experts}]")
    if experts % groups or not 1 <= topk_groups <= groups or not 1 <= topk <= topk_groups * (experts // groups):
        raise ValueError(
            f"router_topk: {topk} of {experts} experts from {topk_groups} of {groups} groups cannot be chosen"
        )
    return torch.ops.predecode.router_topk(
        logits, correction_bias, topk, groups, topk_groups, renormalize, scaling, shared_experts
    )
