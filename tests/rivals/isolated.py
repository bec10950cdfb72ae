"""Kernels measured in processes of their own: one that faults, dies or hangs costs its own figure and no other.

A fault leaves a process without a GPU. What comes after it in a family goes on in a new process.
"""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from predecode.pipelines.bench.report import RunReport
from tests.rivals.kernel_case import KernelCase, measure, unmeasured
from tests.rivals.kernels import KernelInputs, cases_of
from tests.rivals.layers import free_memory
from tests.rivals.libraries import Libraries, first_line
from tests.rivals.report import KernelResult, RivalError, RivalsReport

SECONDS_TO_START, MOST_SECONDS = 120, 120
"""Until a process says something for the first time, and from then on."""

Cases = Callable[[str], Iterator[KernelCase]]
"""The cases of a family; it can be pickled."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where a process finds its cases; ``libraries`` as in `Libraries`."""

    artifact: Path
    libraries: Path | None
    rows: tuple[int, ...]
    context: str
    device: str

    def __call__(self, family: str) -> Iterator[KernelCase]:
        inputs = KernelInputs(self.artifact, self.rows, self.context, torch.device(self.device))
        return cases_of(family, Libraries(self.libraries), inputs)


@dataclass(frozen=True, slots=True)
class _Begun:
    """What the result of the case is that begins now, but for its figures."""

    result: KernelResult


@dataclass(frozen=True, slots=True)
class _Ended:
    """Nothing more is to come of the family; ``reason`` if there should have been more."""

    reason: str | None = None


def run_isolated(
    cases: Cases, families: Sequence[str], report: RivalsReport, rows: Sequence[int], deadline: float
) -> Iterator[KernelResult]:
    """Results of all ``families``; what ends a family early is in ``report.skipped``.

    After ``deadline`` (`time.monotonic`) nothing new is begun.
    """
    runs = {count: report.run_of(count) for count in rows}
    for family in families:
        done, ended = 0, None
        while ended is None:
            done, ended = yield from _go_on(cases, family, done, runs, deadline)
        if ended.reason:
            report.skipped[family] = ended.reason


def _go_on(
    cases: Cases, family: str, done: int, runs: Mapping[int, RunReport | None], deadline: float
) -> Generator[KernelResult, None, tuple[int, _Ended | None]]:
    """Results of the cases after the first ``done``, as far as one process gets; how many are done, and the end."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(sender, cases, family, done, runs, deadline), daemon=True)
    process.start()
    sender.close()
    before, begun, patience = done, None, SECONDS_TO_START
    try:
        while True:
            if not receiver.poll(patience):
                reason = f"nothing was heard of it for {patience} s"
                break
            message, patience = receiver.recv(), MOST_SECONDS
            if isinstance(message, _Ended):
                return done, message
            if isinstance(message, _Begun):
                begun = message.result
            else:
                yield message
                done, begun = done + 1, None
    except EOFError:
        process.join()
        reason = f"its process ended with code {process.exitcode}"
    finally:
        process.kill()
        process.join()
    if begun is not None:
        yield dataclasses.replace(begun, reason=reason)
        done += 1
    return done, None if done > before else _Ended(reason)


def _serve(
    sender: Connection,
    cases: Cases,
    family: str,
    done: int,
    runs: Mapping[int, RunReport | None],
    deadline: float,
) -> None:
    """The process: results of the cases after the first ``done``, until one loses the GPU."""
    ended = _Ended()
    try:
        for case in _after(cases(family), done):
            if time.monotonic() > deadline:
                raise RivalError(f"not finished at {case.op}, {case.rows} rows: the time was used up")
            run = runs.get(case.rows)
            sender.send(_Begun(unmeasured(case, run)))
            result = measure(case, run)
            sender.send(result)
            if result.reason and _gpu_is_lost():
                return
            free_memory()
    except RivalError as error:
        ended = _Ended(str(error))
    except Exception as error:
        ended = _Ended(first_line(error))
    sender.send(ended)


def _after(cases: Iterator[KernelCase], done: int) -> Iterator[KernelCase]:
    return (case for number, case in enumerate(cases) if number >= done)


def _gpu_is_lost() -> bool:
    try:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
