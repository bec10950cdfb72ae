"""Exact top-k of each row's logits, as cache slots in ascending logical position.

Source: SGLang `fast_topk_transform_fused`, with an exact selection, a fixed order, and the block table of
pages instead of one of tokens.
"""

from dataclasses import replace

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.targets import Target

THREADS = 1024
THREADS_AMONG_OTHERS = 256
"""Threads of a workgroup where the grid is other ops' too."""


def reference(logits: torch.Tensor, lengths: torch.Tensor, block_table: torch.Tensor, topk: int) -> torch.Tensor:
    width = logits.shape[1]
    kept = min(topk, width)
    position = torch.arange(width, dtype=torch.int64)
    inside = position < lengths[:, None]
    # Positions outside come after all inside ones, so a stable sort puts them last even among -inf.
    scores = torch.where(inside, logits, float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    chosen = torch.sort(order[:, :kept], dim=1).values
    chosen = torch.where(lengths[:, None] > topk, chosen, position[:kept])
    page = block_table.gather(1, chosen // PAGE_TOKENS)
    slots = page * PAGE_TOKENS + (chosen % PAGE_TOKENS).to(torch.int32)
    slots = torch.where(position[:kept] < lengths[:, None], slots, -1)
    return torch.nn.functional.pad(slots, (0, topk - kept), value=-1)


def _fake(logits, lengths, block_table, topk):
    return logits.new_empty((logits.shape[0], topk), dtype=torch.int32)


def _launch(target: Target, call: Call) -> Launch | None:
    rows, width = call["logits"].shape
    launch = Launch(
        source="topk_slots.hip" if target.has_hip_kernels else "topk_slots.cpp",
        symbol="topk_slots",
        operands=("logits", "lengths", "block_table"),
        constants=(width, call["topk"]),
        workgroups=(rows, 1, 1),
    )
    if not target.has_hip_kernels:
        return launch
    return replace(_with_threads(launch, THREADS), when_resident=_with_threads(launch, THREADS_AMONG_OTHERS))


def _with_threads(launch: Launch, threads: int) -> Launch:
    return replace(launch, workgroup_size=(threads, 1, 1), defines=(("THREADS", threads),))


OP = define_op(
    "topk_slots(Tensor logits, Tensor lengths, Tensor block_table, int topk) -> Tensor",
    reference,
    _fake,
    launch=_launch,
)


def topk_slots(logits: torch.Tensor, lengths: torch.Tensor, block_table: torch.Tensor, topk: int) -> torch.Tensor:
    """Slots of the ``topk`` largest logits of each row, int32 [T, topk], in ascending logical position.

    ``logits`` float32 [T, B*64], of which only [0, length) counts; ``lengths`` int32 [T], at most B*64;
    ``block_table`` int32 [T, B]. Position p of row t is in slot ``block_table[t, p // 64] * 64 + p % 64``.
    Equal logits are taken from the lowest position; both zeros are equal and a NaN is above all. Where length
    is at most ``topk``, every position is taken and the rest of the row is -1.
    """
    require_tensor("topk_slots", "block_table", block_table, torch.int32, ("T", "B"))
    rows, pages = block_table.shape
    require_tensor("topk_slots", "logits", logits, torch.float32, (rows, pages * PAGE_TOKENS))
    require_tensor("topk_slots", "lengths", lengths, torch.int32, (rows,))
    if topk < 1:
        raise ValueError(f"topk_slots: topk is {topk}, expected at least 1")
    return torch.ops.predecode.topk_slots(logits, lengths, block_table, topk)
