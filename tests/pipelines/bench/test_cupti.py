"""Reading CUPTI's records, from a library that stands for it: no NVIDIA GPU is needed."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from predecode.pipelines.bench import cupti, tracing
from predecode.pipelines.bench.dispatch_times import DispatchTimesUnavailable, Event
from tests.pipelines.small_artifact import step_entry

SOURCE = Path(__file__).with_name("cupti_stand_in.c")


@pytest.fixture(scope="session")
def library(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("cupti") / "libcupti.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
    return str(path)


def test_kernels_are_recorded_in_the_order_of_start(library, monkeypatch):
    monkeypatch.setattr(cupti, "_candidates", lambda: ["/nowhere/libcupti.so", library])
    trace = cupti.KernelTrace()
    with trace.recording():
        pass
    assert trace.take_events() == [
        Event("norm", (4, 1, 1), 6999999000, 6999999250),
        Event("gemm", (28, 2, 1), 7000000000, 7000001500),
        Event("", (1, 1, 1), 8000000000, 8000000001),
    ]
    assert trace.take_events() == []


def test_an_error_of_the_library_is_named(library, monkeypatch):
    monkeypatch.setattr(cupti, "_candidates", lambda: [library])
    monkeypatch.setattr(cupti, "_CONCURRENT_KERNEL", 3)
    with (
        pytest.raises(DispatchTimesUnavailable, match=r"cuptiActivityEnable gives STAND_IN_ERROR \(1\)"),
        cupti.KernelTrace().recording(),
    ):
        pass


def test_without_the_library_the_wheel_is_named(monkeypatch):
    monkeypatch.setattr(cupti, "_candidates", lambda: ["/nowhere/libcupti.so"])
    with pytest.raises(DispatchTimesUnavailable, match=r"install the wheel nvidia-cuda-cupti \(/nowhere"):
        cupti.KernelTrace()


def test_libraries_of_wheels_are_found(tmp_path, monkeypatch):
    for folder, name in (("nvidia/cu13/lib", "libcupti.so.13"), ("nvidia/cuda_cupti/lib", "libcupti.so.12")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / name).touch()
    monkeypatch.setattr(cupti.sys, "path", [str(tmp_path)])
    names = [Path(path).name for path in cupti._candidates()]
    assert names[:2] == ["libcupti.so.13", "libcupti.so.12"]


def test_other_drivers_have_no_tracer():
    stepper = SimpleNamespace(session=SimpleNamespace(uri="hip://0"), run=None, segments=())
    with pytest.raises(DispatchTimesUnavailable, match="hip driver has no profiler"):
        tracing.time_dispatches(stepper)


def test_what_was_run_while_recording_is_dealt_to_its_dispatches(library, monkeypatch):
    monkeypatch.setattr(cupti, "_candidates", lambda: [library])
    ran = []
    with pytest.raises(DispatchTimesUnavailable, match="3 dispatches were traced, not a multiple of the 2"):
        tracing.trace_kernels("cuda://0", ran.append, [step_entry(1)])
    assert ran == [3, 20]
