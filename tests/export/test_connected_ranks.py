"""Two ranks in processes of their own, on emulated devices, which add up their partial sums among themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from predecode.export import exporter
from predecode.pipelines import DecodeSession, compare, run
from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.made_up_steps import MadeUpSteps
from predecode.pipelines.submission import EntryFunction
from tests.connected_ranks import STEPS, decode, differences, run_ranks
from tests.export.conftest import export_tiny

RANKS, ROWS = 2, 4


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> dict[str, list[Path]]:
    """Artifacts of both ranks by how they are reduced; the second of those with peers has a golden."""
    folder = tmp_path_factory.mktemp("ranks")
    return {
        reduce: [exported(folder, rank, reduce=reduce, golden=(reduce, rank) == ("peers", 1)) for rank in range(RANKS)]
        for reduce in ("peers", "external")
    }


def exported(folder: Path, rank: int, *, golden: bool = False, **options) -> Path:
    options = {"target": "gfx942", "rows": (ROWS,), "tensor_parallel": RANKS, "rank": rank} | options
    with pytest.MonkeyPatch.context() as patch:
        if not golden:
            patch.setattr(exporter, "MOST_GOLDEN_PARAMETER_BYTES", 0)
        return export_tiny(folder / f"{options['reduce']}{rank}", **options)


def decoded(folders: list[Path]) -> list[list[dict[str, np.ndarray]]]:
    return run_ranks(decode, [(folder, "emulated", ROWS) for folder in folders])


def test_ranks_that_add_up_themselves_give_the_same_bits_as_a_caller_does(ranks):
    given = decoded(ranks["peers"])
    assert differences(given, decoded(ranks["external"])) == []
    first, second = given
    assert len(first) == STEPS
    assert all(np.isfinite(step["logits"]).all() for step in (*first, *second))
    assert differences([first], [second]) != [], "each has its part of the vocabulary"


def test_ranks_whose_layers_are_one_dispatch_give_the_same_bits(tmp_path):
    """Both all-reduces of a layer in one grid, whose workgroups wait for the other rank's between barriers."""
    fused, apart = (
        [
            exported(tmp_path / fuse, rank, reduce="peers", fuse=fuse, layers=(1,), target="gfx950")
            for rank in range(RANKS)
        ]
        for fuse in ("layer", "none")
    )
    assert len(read_manifest(fused[0]).entry_points[0].audit.dispatches) == 1
    given = decoded(fused)
    assert differences(given, decoded(apart)) == []
    assert differences(given[:1], given[1:]) == [], "ranks go on with the same sums"


def test_ranks_in_the_wrong_order_are_refused(ranks):
    with pytest.raises(RuntimeError, match=r"the artifact is rank 1 of 2, and ranks \[1, 0\] are connected"):
        decoded(ranks["peers"][::-1])


def test_a_rank_needs_the_others(ranks):
    session = DecodeSession.open(ranks["peers"][0], "emulated")
    arguments = MadeUpSteps(session.manifest, ROWS).next_arguments()
    with pytest.raises(
        PredecodeError, match=r"rank 0 of 2, and adds up partial sums with the others; call connect\(\)"
    ):
        session.step(**arguments)
    with pytest.raises(PredecodeError, match="in one process"):
        session.connect(lambda data: [_as_rank(data, rank) for rank in range(RANKS)])
    session.stand_alone()
    alone = session.step(**arguments)["logits"]
    session.reset()
    session.loop_back()
    assert np.abs(session.step(**arguments)["logits"] - alone).max() > 0.1, "the other rank's part counts"


def test_ranks_are_apart_after_a_step_that_failed(ranks, monkeypatch):
    """What had been sent of it may still lie in their mailboxes."""
    session = DecodeSession.open(ranks["peers"][0], "emulated")
    arguments = MadeUpSteps(session.manifest, ROWS).next_arguments()
    session.stand_alone()
    session.step(**arguments)
    with monkeypatch.context() as failing:
        failing.setattr(EntryFunction, "submit", _fail)
        with pytest.raises(PredecodeError, match="device lost"):
            session.step(**arguments)
    with pytest.raises(PredecodeError, match=r"call connect\(\)"):
        session.step(**arguments)
    session.stand_alone()
    session.step(**arguments)


def _fail(*_):
    raise RuntimeError("device lost")


def _as_rank(data: bytes, rank: int) -> bytes:
    return json.dumps({**json.loads(data), "rank": rank}).encode()


def test_a_rank_alone_compares_with_its_golden_and_runs(ranks):
    report = compare(ranks["peers"][1], "emulated", strict=True)
    assert report.passed
    assert "one rank of 2 alone" in run(ranks["peers"][1], "emulated", steps=1).note
