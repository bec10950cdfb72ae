"""Processes that die or hang cost their own case and no other."""

import weakref
from pathlib import Path

import pytest
import torch

from tests.rivals import isolated, timing
from tests.rivals.faulty_cases import cases
from tests.rivals.isolated import run_isolated
from tests.rivals.report import RivalsReport


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """The processes look for the cases' module in the path, where pytest does not put it."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def run(*families):
    report = RivalsReport("tiny", "200", "the CPU", {}, "")
    return list(run_isolated(cases, families, report, (4,), float("inf"))), report.skipped


def test_a_family_goes_on_after_the_case_that_ended_its_process():
    results, skipped = run("a case", "nothing")
    assert [result.op for result in results] == ["first", "faulty", "last", "first", "last"]
    assert results[1].reason == "its process ended with code 7"
    assert not skipped
    first, faulty, last, *others = (result.name for result in results)
    assert first == faulty != last and len({last, *others}) == 2, "a process a family, and one more after a fault"


def test_what_ends_before_any_case_is_not_tried_again():
    results, skipped = run("at once", "a library")
    assert [result.op for result in results] == ["first"]
    assert skipped == {"at once": "its process ended with code 3", "a library": "it is missing"}


def test_a_case_that_hangs_is_given_up(monkeypatch):
    monkeypatch.setattr(isolated, "MOST_SECONDS", 4)
    results, skipped = run("silence")
    assert [result.op for result in results] == ["first", "silent", "last"]
    assert results[1].reason == "nothing was heard of it for 4 s" and not skipped


@pytest.fixture
def no_gpu(monkeypatch):
    """Graphs that are recorded, replayed and forgotten without a GPU."""

    class Stream:
        def __getattr__(self, name):
            return lambda *arguments, **options: self

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    for name in ("Stream", "current_stream", "stream", "CUDAGraph", "graph", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *arguments, **options: Stream())


def test_what_a_graph_reads_lives_as_long_as_the_graph(no_gpu):
    """Memory that is freed after the capture is handed out again, and the graph reads what others put there."""

    def make():
        weight = torch.ones(3)
        return weakref.ref(weight), lambda: weight * 2

    weight, call = make()
    graph = timing.Graph([call])
    del call
    assert weight() is not None
    del graph
    assert weight() is None
