"""The sum over tensor-parallel ranks of what each has computed, on every rank: an all-reduce.

Source: aiter's custom all-reduce, in one stage (`cross_device_reduce_1stage`) or in two (`cross_device_reduce_2stage`).
Here nobody reads another device's memory: a rank sends what it has, and what arrives tells for itself that it is there.
"""

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.row_workgroups import THREADS, chunks_of
from predecode.custom_kernels.targets import Target
from predecode.pipelines.mailbox_table import TURNS, table_shape


def reference(partial: torch.Tensor, mailboxes: torch.Tensor, rank: int, turn: int) -> torch.Tensor:
    """As if no other rank took part: they cannot be seen here."""
    return partial.clone()


def _fake(partial, mailboxes, rank, turn):
    return torch.empty_like(partial)


_MOST_ONE_SHOT_BYTES = 800_000
"""That a rank sends in one shot beyond what it would in two: as many cross a link in the time that a second shot takes
to arrive (2.2 us at 370 GB/s)."""


def two_shots(ranks: int, elements: int) -> bool:
    """Whether two shots are sooner: each of ``ranks`` sends two slices to every other one, not all ``elements``."""
    slices_are_alike = elements % (8 * ranks) == 0
    return slices_are_alike and 2 * elements * (ranks - 1) * (ranks - 2) // ranks > _MOST_ONE_SHOT_BYTES


def _launch(target: Target, call: Call) -> Launch | None:
    if not target.has_hip_kernels:
        return None
    elements, ranks = call["partial"].numel(), call["mailboxes"].shape[2]
    in_two = two_shots(ranks, elements)
    # So few workgroups may wait in a chain for what makes the partial sums.
    workgroups = min(chunks_of(-(-elements // ranks) if in_two else elements), target.compute_units)
    return Launch(
        source="all_reduce_two_shot.hip" if in_two else "all_reduce.hip",
        symbol="all_reduce",
        operands=("partial", "mailboxes"),
        constants=(call["rank"], call["turn"]),
        workgroups=(workgroups, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("RANKS", ranks), ("PIECES", elements // 8), ("THREADS", THREADS), ("WORKGROUPS", workgroups)),
        reads_early=("mailboxes",),
        takes="" if in_two else "partial",
    )


OP = define_op(
    "all_reduce(Tensor partial, Tensor mailboxes, int rank, int turn) -> Tensor", reference, _fake, launch=_launch
)


def all_reduce(partial: torch.Tensor, mailboxes: torch.Tensor, rank: int, turn: int) -> torch.Tensor:
    """``partial`` bf16 [T, N], N a multiple of 8, summed over the ranks in float32, in their order, and rounded once.

    ``mailboxes`` int64 [2, 2, ranks] tells where ranks send and find them (see `mailbox_table`), each T * N elements
    of 16 bits; a rank without mailboxes takes no part. Calls of one stream alternate between ``turn`` 0 and 1 on all
    ranks. A call waits for as long as another rank has not made its own.
    """
    require_tensor("all_reduce", "partial", partial, torch.bfloat16, ("T", "N"))
    ranks = mailboxes.shape[-1]
    require_tensor("all_reduce", "mailboxes", mailboxes, torch.int64, table_shape(ranks))
    if partial.shape[1] % 8:
        raise ValueError(f"all_reduce: partial has {partial.shape[1]} columns, expected a multiple of 8; pad it")
    if not 0 <= rank < ranks or ranks < 2:
        raise ValueError(f"all_reduce: rank {rank} of {ranks}, expected one of at least two ranks, from 0")
    if turn not in range(TURNS):
        raise ValueError(f"all_reduce: turn {turn}, expected 0 to {TURNS - 1}")
    return torch.ops.predecode.all_reduce(partial, mailboxes, rank, turn)
