"""Ranks of `all_reduce` in processes of their own, on emulated devices that share memory."""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import torch

from predecode.custom_kernels.all_reduce import OP
from predecode.custom_kernels.targets import TARGETS
from predecode.pipelines import emulation
from predecode.pipelines.emulation.shared_memory import SharedMemory
from predecode.pipelines.mailbox_table import TURNS, mailbox_table, memory_bytes, table_shape
from predecode.pipelines.mailboxes import AllGather
from tests.connected_ranks import run_ranks
from tests.custom_kernels.cases.case import EXACT, Case
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases


def compiled(folder: Path, target: str, shape: tuple[int, int], ranks: int) -> Path:
    """A module with an entry point for every rank and turn, rank by rank."""
    partial = torch.empty(shape, dtype=torch.bfloat16)
    mailboxes = torch.zeros(table_shape(ranks), dtype=torch.int64)
    calls = [(partial, mailboxes, rank, turn) for rank in range(ranks) for turn in range(TURNS)]
    path = folder / "all_reduce.vmfb"
    path.write_bytes(compile_cases(OP, [Case("", call, (EXACT,)) for call in calls], TARGETS[target]))
    return path


def sums_of_ranks(vmfb: Path, target: str, partials: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What every rank gets, [call, T, N] as uint16; ``partials`` are bfloat16 [call, T, N] of each rank.

    Calls follow each other without waiting for other ranks.
    """
    given = [(vmfb, target, len(partials), partial.view(np.uint16)) for partial in partials]
    return run_ranks(_sum_calls, given)


def _sum_calls(rank: int, all_gather: AllGather, vmfb: Path, target: str, ranks: int, partials: np.ndarray):
    device = emulation.open_device(TARGETS[target].arch, strict=True)
    memory = SharedMemory()
    mailbox_bytes = partials[0].nbytes
    size = memory_bytes(ranks, mailbox_bytes)
    own = memory.allocate(size)
    memory.clear(own, size)
    handles = all_gather(memory.handle(own))
    memories = [own if other == rank else memory.open(handle) for other, handle in enumerate(handles)]
    table = torch.from_numpy(mailbox_table(memories, rank, mailbox_bytes))
    cases = LoadedCases(vmfb.read_bytes(), device)
    sums = []
    for call, partial in enumerate(partials):
        given = torch.from_numpy(partial.copy()).view(torch.bfloat16)
        (result,) = cases.run(rank * TURNS + call % TURNS, (given, table))
        sums.append(result.view(np.uint16))
    all_gather(b"")  # nothing more arrives
    assert not any(ctypes.string_at(own, size)), "what has been taken leaves zeros"
    return np.stack(sums)


def expected_sum(partials: Sequence[np.ndarray], order: Sequence[int]) -> np.ndarray:
    """bfloat16 sums of ``partials``, added in float32 in ``order`` of the ranks."""
    total = partials[order[0]].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for rank in order[1:]:
            total = total + partials[rank].astype(np.float32)
    return total.astype(ml_dtypes.bfloat16)
