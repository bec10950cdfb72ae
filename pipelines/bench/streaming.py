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
        samples, buffer_bytes = _stream(session, probe, progress)
        return Bandwidth(samples, buffer_bytes, _launches(session, probe))
    except RuntimeError as error:
        raise PredecodeError(f"the bandwidth probe failed on {session.uri}: {first_line(error)}") from None


def _stream(session: DecodeSession, probe: BandwidthProbe, progress: Progress | None) -> tuple[tuple[float, ...], int]:
    """Bytes per second of each repeat, and the bytes of a round."""
    entry = probe.entry_point
    reader = _Reader(session, probe, entry, 1)
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


def _launches(session: DecodeSession, probe: BandwidthProbe) -> tuple[LaunchTime, ...]:
    if probe.launches is None:
        return ()
    reader = _Reader(session, probe, probe.launches, _LAUNCH_BUFFERS)
    try:
        return launch_times(probe.launches, trace_kernels(session.uri, reader.run, [probe.launches]))
    except DispatchTimesUnavailable:  # the runs tell why
        return ()


class _Reader:
    """A function of the probe with ``sets`` sets of the buffers that it reads, which it is given in turn."""

    def __init__(self, session: DecodeSession, probe: BandwidthProbe, entry: EntryPoint, sets: int):
        config = rt.Config(device=session.device)
        module = rt.VmModule.mmap(config.vm_instance, str(session.artifact.path(probe.module)))
        context = rt.SystemContext(vm_modules=[module], config=config).vm_context
        self._session, self._entry, self._count = session, entry, sets
        self._function = EntryFunction(context, module, entry, transient_memory(session.device, [entry]))
        self._timeline = Timeline(session.device)

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
