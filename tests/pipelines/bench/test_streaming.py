"""The probe's functions as they are compiled, and run on an emulated device with fewer bytes."""

from types import SimpleNamespace

import iree.runtime as rt
import numpy as np
import pytest

from predecode.custom_kernels.stream_read import PIECE_BYTES, PIECE_WORDS
from predecode.custom_kernels.targets import CPU, GFX942, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export import bandwidth_probe
from predecode.export.bandwidth_probe import write_probe
from predecode.pipelines import emulation
from predecode.pipelines.bench import streaming
from predecode.pipelines.bench.dispatch_times import DispatchTimes
from predecode.pipelines.bench.streaming import measure_bandwidth


def pieces(entry) -> list[int]:
    return [dispatch.workgroups[0] for dispatch in entry.audit.dispatches]


@pytest.mark.parametrize("target", [SM_90, GFX942], ids=lambda target: target.name)
def test_each_launch_starts_when_the_one_before_has_ended(target, tmp_path):
    probe = write_probe(tmp_path, target, Toolchain())
    for entry in (probe.entry_point, probe.launches):
        assert [d.after for d in entry.audit.dispatches] == [(), *((i,) for i in range(len(pieces(entry)) - 1))]
        assert (entry.audit.copies, entry.audit.fills) == (0, 0)
        assert [d.bytes_read for d in entry.audit.dispatches] == [n * PIECE_BYTES + 4 for n in pieces(entry)]
    assert pieces(probe.entry_point) == [2**32 // PIECE_BYTES] * 2
    # From 64 KiB, the least that a dispatch is worth, to what the bandwidth alone tells.
    assert (PIECE_BYTES * min(pieces(probe.launches)), PIECE_BYTES * max(pieces(probe.launches))) == (2**16, 2**27)
    assert PIECE_WORDS * sum(pieces(probe.launches)) <= probe.launches.arguments[1].shape[0]


def test_a_processor_has_no_launches(tmp_path):
    assert write_probe(tmp_path, CPU, Toolchain()).launches is None


@pytest.fixture
def small_session(tmp_path, monkeypatch):
    """What `measure_bandwidth` needs of a session, with a probe of few bytes on an emulated device."""
    monkeypatch.setattr(bandwidth_probe, "_GPU_READINGS", (2**18,) * 2)
    monkeypatch.setattr(bandwidth_probe, "_LAUNCH_BYTES", (2**17, 2**16, 2**14))
    monkeypatch.setattr(streaming, "_SECONDS", 0.0)
    probe = write_probe(tmp_path, GFX942, Toolchain())
    return SimpleNamespace(
        manifest=SimpleNamespace(bandwidth_probe=probe),
        artifact=SimpleNamespace(path=lambda name: tmp_path / name),
        device=emulation.open_device("gfx942", strict=True),
        uri="hip://0",
    )


def test_launches_read_one_part_after_the_other(small_session):
    probe = small_session.manifest.bandwidth_probe
    before, data = (
        np.random.default_rng(5).integers(-(2**31), 2**31, spec.shape, dtype=np.int32)
        for spec in probe.launches.arguments
    )
    reader = streaming._Reader(streaming._LoadedProbe(small_session, probe), probe.launches, 1)
    reader._sets = [[rt.asdevicearray(small_session.device, array) for array in (before, data)]]
    (result,) = reader.run(2)
    of_pieces = np.bitwise_xor.reduce(data[: data.size // PIECE_WORDS * PIECE_WORDS].reshape(-1, PIECE_WORDS), axis=1)
    # Each launch has the first piece of the one before in its results.
    assert pieces(probe.launches) == [8, 4, 1]
    np.testing.assert_array_equal(result.to_host(), [before[0] ^ of_pieces[0] ^ of_pieces[8] ^ of_pieces[12]])


def test_bandwidth_without_a_tracer(small_session, monkeypatch):
    made = []
    monkeypatch.setattr(
        streaming.np, "arange", lambda *args, arange=np.arange, **kw: made.append(1) or arange(*args, **kw)
    )
    bandwidth = measure_bandwidth(small_session)
    assert made == [1], "words for launches that nobody times"
    assert len(bandwidth.samples) == streaming.REPEATS and bandwidth.median > 0
    assert bandwidth.buffer_bytes == 2 * (2**18 + 4 + 4 * 2**18 // PIECE_BYTES)
    assert bandwidth.launches == () and bandwidth.launch_floor(2**16) is None


def test_traced_launches_go_with_their_bytes(small_session, monkeypatch):
    def traced(uri, run, segments):
        run(1)
        assert segments == [small_session.manifest.bandwidth_probe.launches]
        return DispatchTimes(((8e-6, 6e-6, 7e-6), (5e-6,), (2e-6, 1e-6)), "")

    monkeypatch.setattr(streaming, "trace_kernels", traced)
    bandwidth = measure_bandwidth(small_session)
    moved = [n * (PIECE_BYTES + 4) + 4 for n in (1, 4, 8)]
    assert [(launch.bytes, launch.median) for launch in bandwidth.launches] == [
        (moved[0], 1.5e-6),
        (moved[1], 5e-6),
        (moved[2], 7e-6),
    ]
    assert bandwidth.launch_floor(moved[1]) == 5e-6
