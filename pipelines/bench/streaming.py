"""How fast memory is read, by the artifact's own probe: kernels of ours that only read."""

import time
from dataclasses import dataclass
from functools import cached_property

import iree.runtime as rt
import numpy as np

from predecode.pipelines.artifact import Progress
from predecode.pipelines.bench.dispatch_times import DispatchTimesUnavailable
from predecode.pipelines.bench.launches import LaunchTime, launch_floor, launch_times
from predecode.pipelines.bench.tracing import trace_kernels
from predecode.pipelines.device import first_line
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import BandwidthProbe, EntryPoint
from predecode.pipelines.session import DecodeSession
from predecode.pipelines.submission import EntryFunction, Timeline, transient_memory

REPEATS = 9
_SECONDS = 1.0
# Read in turn, so that no cache holds what a launch reads.
_LAUNCH_BUFFERS = 8


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second of each repeat, the bytes that were read in turn, and launches that read fewer, if timed."""

    samples: tuple[float, ...]
    buffer_bytes: int
    launches: tuple[LaunchTime, ...]

    @property
    def median(self) -> float:
        """Bytes per second that floors are taken with."""
        return float(np.median(self.samples))

    def floor(self, count: float) -> float:
        """Seconds that ``count`` bytes take."""
        return count / self.median

    def launch_floor(self, count: float) -> float | None:
        """Seconds of a launch that only reads ``count`` bytes; None where launches could not be timed."""
        return launch_floor(self.launches, count, self.median)


def measure_bandwidth(session: DecodeSession, progress: Progress | None = None) -> Bandwidth:
    """Read the probe's buffers in turn, back to back, for about a second; then time launches of fewer bytes."""
    probe = session.manifest.bandwidth_probe
    if probe is None:
        raise PredecodeError(
            f"{session.artifact.folder} has no bandwidth probe, which floors are measured with; export it again"
        )
    try:
        loaded = _LoadedProbe(session, probe)
        samples, buffer_bytes = _stream(loaded, progress)
        return Bandwidth(samples, buffer_bytes, _launches(loaded))
    except RuntimeError as error:
        raise PredecodeError(f"the bandwidth probe failed on {session.uri}: {first_line(error)}") from None


class _LoadedProbe:
    """The probe ``record`` of the session's artifact, on its device."""

    def __init__(self, session: DecodeSession, record: BandwidthProbe):
        self.session, self.record = session, record
        config = rt.Config(device=session.device)
        self.module = rt.VmModule.mmap(config.vm_instance, str(session.artifact.path(record.module)))
        self.context = rt.SystemContext(vm_modules=[self.module], config=config).vm_context


def _stream(probe: _LoadedProbe, progress: Progress | None) -> tuple[tuple[float, ...], int]:
    """Bytes per second of each repeat, and the bytes of a round."""
    entry = probe.record.entry_point
    reader = _Reader(probe, entry, 1)
    bytes_per_round = sum(d.bytes_read + d.bytes_written for d in entry.audit.dispatches)

    def timed(rounds: int) -> float:
        start = time.perf_counter()
        reader.run(rounds)
        return time.perf_counter() - start

    timed(1)
    rounds = max(1, round(_SECONDS / REPEATS / timed(1)))
    samples = []
    for repeat in range(REPEATS):
        samples.append(rounds * bytes_per_round / timed(rounds))
        if progress:
            progress("reading memory", repeat + 1, REPEATS)
    return tuple(samples), bytes_per_round


def _launches(probe: _LoadedProbe) -> tuple[LaunchTime, ...]:
    entry = probe.record.launches
    if entry is None:
        return ()
    reader = _Reader(probe, entry, _LAUNCH_BUFFERS)
    try:
        return launch_times(entry, trace_kernels(probe.session.uri, reader.run, [entry]))
    except DispatchTimesUnavailable:  # the runs tell why
        return ()


class _Reader:
    """A function of the probe with ``sets`` sets of the buffers that it reads, which it is given in turn."""

    def __init__(self, probe: _LoadedProbe, entry: EntryPoint, sets: int):
        self._session, self._entry, self._count = probe.session, entry, sets
        transients = transient_memory(probe.session.device, [entry])
        self._function = EntryFunction(probe.context, probe.module, entry, transients)
        self._timeline = Timeline(probe.session.device)

    def run(self, times: int) -> list[rt.DeviceArray]:
        """Call it ``times`` times, back to back, and wait; the results of the last call."""
        results = []
        for i in range(times):
            results = self._function.submit(self._session.device, self._timeline, self._sets[i % len(self._sets)])
        self._timeline.wait()
        return results

    @cached_property
    def _sets(self) -> list[list[rt.DeviceArray]]:
        """Buffers of different words: memory that was never written may not be behind its addresses.

        They are made when something is run: where nothing can be timed, nothing is.
        """
        device, counts = self._session.device, [spec.shape[0] for spec in self._entry.arguments]
        try:
            words = np.arange(max(counts), dtype=np.int32)
            return [[rt.asdevicearray(device, words[:count]) for count in counts] for _ in range(self._count)]
        except (RuntimeError, MemoryError) as error:
            raise PredecodeError(
                f"buffers of {4 * sum(counts) * self._count} bytes do not fit beside the model on {self._session.uri} "
                f"({first_line(error)}); bench an artifact with fewer layers or pages"
            ) from None
