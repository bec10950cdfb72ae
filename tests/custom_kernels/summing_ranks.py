"""Ranks of `all_reduce` in processes of their own, which send each other what they have.

    python -m tests.custom_kernels.summing_ranks build --target sm_90 DIR    # where the compiler is
    python -m tests.custom_kernels.summing_ranks run --device cuda DIR       # where the device is

The tests do the same on emulated devices. Ranks of one real device take turns on it.
"""

import argparse
import ctypes
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import iree.runtime as rt
import ml_dtypes
import numpy as np
import torch

from predecode.custom_kernels import all_reduce
from predecode.custom_kernels.targets import TARGETS
from predecode.pipelines import emulation
from predecode.pipelines.device import EMULATED
from predecode.pipelines.mailbox_table import TURNS, mailbox_table, memory_bytes, table_shape
from predecode.pipelines.mailboxes import AllGather, peer_memory
from tests.connected_ranks import run_ranks
from tests.custom_kernels.cases.case import EXACT, Case
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases

CALLS = 5
ONE_SHOT, TWO_SHOTS = 10**9, -1


@dataclass(frozen=True, slots=True)
class Size:
    """T and N, how many ranks, and `all_reduce._MOST_ONE_SHOT_BYTES`."""

    rows: int
    columns: int
    ranks: int
    limit: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}-{self.ranks}-{'two' if self.limit == TWO_SHOTS else 'one'}"


# A single row, pieces that fill no workgroup, workgroups of several pieces a thread.
SMALL_SIZES = [
    Size(1, 128, 2, ONE_SHOT),
    Size(65, 384, 3, ONE_SHOT),
    Size(3, 8, 3, ONE_SHOT),
    Size(1, 128, 2, TWO_SHOTS),
    Size(63, 384, 3, TWO_SHOTS),
    Size(4, 384, 3, TWO_SHOTS),
]
TRUE_SIZES = [Size(rows, 6144, 8, limit) for rows in (1, 4, 64) for limit in (ONE_SHOT, TWO_SHOTS)]


def compiled(path: Path, target: str, size: Size) -> Path:
    """A module with an entry point for every rank and turn, rank by rank, at ``path``."""
    partial = torch.empty(size.shape, dtype=torch.bfloat16)
    mailboxes = torch.zeros(table_shape(size.ranks), dtype=torch.int64)
    calls = [(partial, mailboxes, rank, turn) for rank in range(size.ranks) for turn in range(TURNS)]
    usual, all_reduce._MOST_ONE_SHOT_BYTES = all_reduce._MOST_ONE_SHOT_BYTES, size.limit
    try:
        path.write_bytes(compile_cases(all_reduce.OP, [Case("", call, (EXACT,)) for call in calls], TARGETS[target]))
    finally:
        all_reduce._MOST_ONE_SHOT_BYTES = usual
    return path


def random_partials(size: Size) -> list[np.ndarray]:
    """Of each rank bfloat16 [call, T, N]: large numbers that cancel, whose order shows, and no numbers."""
    random = np.random.default_rng([*size.shape, size.ranks])
    everything = size.ranks, CALLS, *size.shape
    partials = random.standard_normal(everything) * 10.0 ** random.integers(-3, 4, everything)
    partials[0, :, :, 0] = 3e4
    partials[1, :, :, 0] = -3e4
    partials[:, 1, 0, 1:5] = np.nan, np.inf, -0.0, 3e38
    partials[0, 1, 0, 2] = -np.inf
    made = partials.astype(ml_dtypes.bfloat16)
    made.view(np.uint16)[:, 2, 0, 6:8] = 0xFFFF  # its complement is the word that stands for none
    return list(made)


def sums_of_ranks(vmfb: Path, target: str, device: str, partials: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What every rank gets, [call, T, N] as uint16; ``partials`` are bfloat16 [call, T, N] of each rank.

    Calls follow each other without waiting for other ranks.
    """
    given = [(vmfb, target, device, len(partials), partial.view(np.uint16)) for partial in partials]
    return run_ranks(_sum_calls, given)


def _sum_calls(
    rank: int, all_gather: AllGather, vmfb: Path, target: str, uri: str, ranks: int, partials: np.ndarray
) -> np.ndarray:
    emulated = uri == EMULATED
    device = emulation.open_device(TARGETS[target].arch, strict=True) if emulated else rt.get_device(uri)
    memory = peer_memory(uri)
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
    if emulated:
        assert not any(ctypes.string_at(own, size)), "what has been taken leaves zeros"
    return np.stack(sums)


def expected_sum(partials: Sequence[np.ndarray], order: Sequence[int]) -> np.ndarray:
    """bfloat16 sums of ``partials``, added in float32 in ``order`` of the ranks."""
    total = partials[order[0]].astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for rank in order[1:]:
            total = total + partials[rank].astype(np.float32)
    return total.astype(ml_dtypes.bfloat16)


def first_mismatch(sums: Sequence[np.ndarray], expected: np.ndarray) -> str | None:
    """Where a rank has another sum than ``expected``, if one does: other bits, or what is no number elsewhere."""
    no_number = np.isnan(expected.astype(np.float32))
    for rank, given in enumerate(sums):
        differs = np.isnan(given.view(ml_dtypes.bfloat16).astype(np.float32)) != no_number
        differs |= (given != expected.view(np.uint16)) & ~no_number
        if differs.any():
            call, row, column = np.argwhere(differs)[0]
            return f"rank {rank} has {differs.sum()} wrong sums, first in call {call}, row {row}, column {column}"
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=("build", "run"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", default="sm_90", choices=TARGETS)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = False
    for size in SMALL_SIZES + TRUE_SIZES:
        path = options.folder / f"{size}.vmfb"
        if options.action == "build":
            compiled(path, options.target, size)
            continue
        partials = random_partials(size)
        sums = sums_of_ranks(path, options.target, options.device, partials)
        fault = first_mismatch(sums, expected_sum(partials, range(size.ranks)))
        failed |= fault is not None
        print(f"{size}: {fault or 'every rank has the sum'}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
