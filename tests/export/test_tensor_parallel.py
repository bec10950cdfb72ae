"""Two compiled ranks in lockstep, their partial sums added between segments, against one compiled rank."""

import threading

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines import DecodeSession
from predecode.pipelines.step_results import to_host
from tests.export.conftest import export_tiny

ROWS = 4
STEPS = 3


class Sum:
    """An all-reduce of two threads."""

    def __init__(self):
        self.parts = [None, None]
        self.barrier = threading.Barrier(2)

    def of_rank(self, rank: int):
        def reduce(partial):
            self.parts[rank] = to_host(partial).astype(np.float32)
            self.barrier.wait(60)
            total = (self.parts[0] + self.parts[1]).astype(ml_dtypes.bfloat16)
            self.barrier.wait(60)
            return total

        return reduce


def step_inputs(step: int) -> dict[str, np.ndarray]:
    """Two sequences with two rows each, from position 62 of empty pages on: they cross a page edge."""
    positions = np.array([62, 63, 62, 63]) + 2 * step
    table = np.array([[1, 2, 0, 0], [1, 2, 0, 0], [5, 3, 0, 0], [5, 3, 0, 0]], np.int32)
    return {
        "tokens": np.array([3, 14, 15, 92]) + step,
        "positions": positions,
        "lengths": (positions + 1).astype(np.int32),
        "slot_mapping": table[np.arange(ROWS), positions // 64].astype(np.int64) * 64 + positions % 64,
        "block_table": table,
    }


def run(session: DecodeSession, results: list, reduce=None) -> None:
    for step in range(STEPS):
        results.append(session.step(**step_inputs(step), reduce=reduce)["logits"])


@pytest.mark.parametrize("model", ["tiny", "tiny-deepseek"])
def test_two_ranks_are_one(model, tmp_path):
    whole: list[np.ndarray] = []
    run(DecodeSession.open(export_tiny(tmp_path / "whole", model=model, rows=(ROWS,))), whole)
    ranks: list[list[np.ndarray]] = [[], []]
    total = Sum()
    threads = []
    for rank in range(2):
        folder = export_tiny(tmp_path / f"rank{rank}", model=model, rows=(ROWS,), tensor_parallel=2, rank=rank)
        arguments = (DecodeSession.open(folder), ranks[rank], total.of_rank(rank))
        threads.append(threading.Thread(target=run, args=arguments))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    for step in range(STEPS):
        joined = np.concatenate([ranks[0][step], ranks[1][step]], axis=1)
        cosine = (joined * whole[step]).sum(1) / np.linalg.norm(joined, axis=1) / np.linalg.norm(whole[step], axis=1)
        assert cosine.min() > 0.99, (step, cosine)
        half = np.concatenate([ranks[0][step], ranks[0][step]], axis=1)
        assert (half * whole[step]).sum() < 0.9 * (joined * whole[step]).sum(), "a rank alone must not do"
