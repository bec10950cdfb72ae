"""Counting dispatches, with records that a stand-in for the emulated device gives."""

import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from predecode.pipelines import DecodeSession
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.inspection import Inspection
from predecode.pipelines.measurement import measure, measure_session


def record(number: int) -> SimpleNamespace:
    classes = {"salu": 1, "smem": 2, "valu": 300 + number, "mfma": 0, "lds": 0, "vmem": 5, "branch": 1}
    return SimpleNamespace(
        wave_instructions=classes,
        matrix_operations=0,
        bytes_loaded=1000 * number,
        bytes_stored=64,
        cache_lines=None,
        lds_bank_conflicts=None,
        seconds=0.1,
    )


def stand_in(counts: list[int]):
    """Gives nothing when it is emptied before a step, then as many records as the next of ``counts``."""
    answers = iter([answer for count in counts for answer in ([], [record(i) for i in range(count)])])
    return lambda: next(answers)


@pytest.fixture
def session(step_artifact) -> DecodeSession:
    return DecodeSession.open(step_artifact)


def test_records_go_to_their_entry_points(session):
    measured = measure_session(session, stand_in([2, 2]))
    assert sorted(measured) == ["step_rows1", "step_rows3"]
    assert [counters.bytes_loaded for counters in measured["step_rows3"].dispatches] == [0, 1000]
    # One row may use all four pages but not more than the context; three rows have one page each.
    assert [measured[name].context for name in sorted(measured)] == [128, 64]


def test_segments_share_the_records_in_order(layer_artifact):
    measured = measure_session(DecodeSession.open(layer_artifact), stand_in([0]))
    assert {name: m.dispatches for name, m in measured.items()} == {"attention_rows2": (), "mlp_rows2": ()}


def test_only_the_chosen_rows_are_stepped(session):
    assert list(measure_session(session, stand_in([2]), (3,))) == ["step_rows3"]


def test_another_number_of_dispatches_is_refused(session):
    with pytest.raises(PredecodeError, match="a step of 1 rows ran 3 dispatches, the manifest lists 2"):
        measure_session(session, stand_in([3, 2]))


def test_counters_are_shown(session):
    inspection = Inspection(session.manifest, measure_session(session, stand_in([2, 2])))
    entry = json.loads(inspection.to_json())["entry_points"][1]
    assert entry["measured"]["dispatches"][1]["bytes_loaded"] == 1000
    assert len(entry["dispatches"]) == 2
    output = io.StringIO()
    inspection.print_to(Console(file=output, width=140))
    assert "step_rows3: counted while running, each row sees 64 tokens" in output.getvalue()
    assert "310" in output.getvalue()
    assert inspection.to_html().count("counted while running: 309 wave instructions") == 2


def test_only_the_emulated_device_counts(step_artifact):
    with pytest.raises(PredecodeError, match="counted on the device 'emulated' only, not on 'local-task'"):
        measure(step_artifact, "local-task")
