"""Setting traced events against the manifest's dispatches."""

from dataclasses import replace

import pytest

from predecode.pipelines.bench.dispatch_times import DispatchTimesUnavailable, Event, match
from tests.pipelines.small_artifact import step_entry

NAMES = (("scale", (4, 1, 1)), ("dispatch_1_matmul_4x4", (2, 1, 1)), ("scale+gemm", (6, 1, 1)))
TRACED = ("predecode.scale.7", "step_rows1$async_dispatch_1_matmul_4x4", "scale__gemm")
SOME = step_entry(1)
DISPATCHES = tuple(replace(SOME.audit.dispatches[0], name=name, workgroups=groups) for name, groups in NAMES)
ENTRY = replace(SOME, audit=replace(SOME.audit, dispatches=DISPATCHES))


def traced(steps: int, names=TRACED) -> list[Event]:
    """Events of ``steps`` steps: dispatch i of step s takes 10 * (i + 1) + s nanoseconds."""
    return [
        Event(name, NAMES[i][1], 1000 * s + 100 * i, 1000 * s + 100 * i + 10 * (i + 1) + s)
        for s in range(steps)
        for i, name in enumerate(names)
    ]


def test_events_go_to_their_dispatches():
    times = match(traced(2), [ENTRY], "a clock")
    assert times.method == "a clock"
    expected = ((10e-9, 11e-9), (20e-9, 21e-9), (30e-9, 31e-9))
    for given, wanted in zip(times.seconds, expected, strict=True):
        assert given == pytest.approx(wanted)


def test_gpu_names_are_the_symbols():
    names = ("scale", "step_rows1_async_dispatch_1_matmul_4x4", "scale__gemm")
    assert len(match(traced(1, names), [ENTRY], "").seconds) == 3


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "0 dispatches were traced, not a multiple of the 3"),
        (traced(2)[:-1], "5 dispatches were traced"),
        (traced(2)[1:] + traced(1)[:1], "dispatch 0 of the traced steps is 'step_rows1.*lists 'scale' over 4 x 1 x 1"),
        ([replace(traced(1)[0], workgroups=(4, 2, 1)), *traced(1)[1:]], "over 4 x 2 x 1 workgroups"),
        ([replace(traced(1)[0], name="scaled"), *traced(1)[1:]], "'scaled'"),
    ],
)
def test_other_events_are_refused(events, message):
    with pytest.raises(DispatchTimesUnavailable, match=message):
        match(events, [ENTRY], "")
