"""What it takes to check and time one op by one kernel."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from tests.rivals.libraries import first_line
from tests.rivals.report import KernelResult, RivalError, RunReport, our_dispatch
from tests.rivals.timing import Call, Graph

FEWEST_SETS, MOST_SETS = 8, 64
COLD_BYTES = 320_000_000
"""Cycled through in a graph, so that weights and caches come from memory: several times the last-level cache."""


@dataclass(frozen=True, slots=True)
class KernelCase:
    """``prepare`` makes the call with the weights and caches of set i, in memory of its own; it returns the result.

    ``bytes`` are all that a call must move, ``cold_bytes`` those of weights and caches. ``deviation`` of set i's
    result from a float32 reference must be at most ``limit``. ``ours`` is our dispatch's op and weight.
    """

    op: str
    name: str
    rows: int
    bytes: int
    cold_bytes: int
    ours: tuple[str, str]
    prepare: Callable[[int], Call]
    deviation: Callable[[int, Any], float]
    limit: float
    remark: str = ""

    @property
    def sets(self) -> int:
        """How many calls a graph holds."""
        wanted = -(-COLD_BYTES // self.cold_bytes) if self.cold_bytes else 0
        return max(FEWEST_SETS, min(MOST_SETS, wanted))


def unmeasured(case: KernelCase, run: RunReport | None) -> KernelResult:
    """The result without what only running tells."""
    ours, ours_with = our_dispatch(run, *case.ours)
    return KernelResult(case.op, case.name, case.rows, case.bytes, ours, ours_with, case.remark)


@torch.no_grad()
def measure(case: KernelCase, run: RunReport | None) -> KernelResult:
    """Check, then time; whatever goes wrong becomes the result's reason."""
    seconds, deviation, reason = (), None, None
    try:
        graph = Graph([case.prepare(number) for number in range(case.sets)])
        graph.replay_into_poison()
        deviation = check(case, graph.results)
        seconds = graph.time().seconds
    except RivalError as error:
        reason = str(error)
    except Exception as error:
        reason = first_line(error)
    return dataclasses.replace(unmeasured(case, run), seconds=seconds, deviation=deviation, reason=reason)


def check(case: KernelCase, results: list[Any]) -> float:
    """Largest deviation of the first, second and last set; raises `RivalError` above the limit."""
    numbers = sorted({0, min(1, len(results) - 1), len(results) - 1})
    worst = max((case.deviation(number, results[number]) for number in numbers), key=lambda d: (d != d, d))
    if not worst <= case.limit:
        raise RivalError(f"wrong: deviates by {worst:.2g}, allowed {case.limit:.2g}")
    return worst


def distance(given: torch.Tensor, wanted: torch.Tensor) -> float:
    """``|given - wanted| / |wanted|`` over all elements; not a number where ``given`` has one that is not."""
    wanted = wanted.float()
    return ((given.float() - wanted).norm() / wanted.norm()).item()
