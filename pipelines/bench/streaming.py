"""The memory's read bandwidth, by the artifact's own probe: a kernel of ours that reads a large buffer once."""

import time
from dataclasses import dataclass

import iree.runtime as rt
import numpy as np

from predecode.pipelines.artifact import Progress
from predecode.pipelines.device import first_line
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import BandwidthProbe
from predecode.pipelines.session import DecodeSession
from predecode.pipelines.submission import EntryFunction, Timeline, transient_memory

REPEATS = 9
_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes per second of each repeat, and the bytes that were read in turn."""

    samples: tuple[float, ...]
    buffer_bytes: int

    @property
    def median(self) -> float:
        """Bytes per second that floors are taken with."""
        return float(np.median(self.samples))


def measure_bandwidth(session: DecodeSession, progress: Progress | None = None) -> Bandwidth:
    """Read the probe's buffers in turn, back to back, for about a second."""
    probe = session.manifest.bandwidth_probe
    if probe is None:
        raise PredecodeError(
            f"{session.artifact.folder} has no bandwidth probe, which floors are measured with; export it again"
        )
    function = _load(session, probe)
    buffers = _fill(session, probe)
    timeline = Timeline(session.device)
    dispatches = probe.entry_point.audit.dispatches
    bytes_per_round = sum(d.bytes_read + d.bytes_written for d in dispatches)

    def read(rounds: int) -> float:
        start = time.perf_counter()
        for _ in range(rounds):
            function.submit(session.device, timeline, buffers)
        timeline.wait()
        return time.perf_counter() - start

    try:
        read(1)
        rounds = max(1, round(_SECONDS / REPEATS / read(1)))
        samples = []
        for repeat in range(REPEATS):
            samples.append(rounds * bytes_per_round / read(rounds))
            if progress:
                progress("reading memory", repeat + 1, REPEATS)
    except RuntimeError as error:
        raise PredecodeError(f"the bandwidth probe failed on {session.uri}: {first_line(error)}") from None
    return Bandwidth(tuple(samples), bytes_per_round)


def _load(session: DecodeSession, probe: BandwidthProbe) -> EntryFunction:
    config = rt.Config(device=session.device)
    module = rt.VmModule.mmap(config.vm_instance, str(session.artifact.path(probe.module)))
    context = rt.SystemContext(vm_modules=[module], config=config).vm_context
    return EntryFunction(context, module, probe.entry_point, transient_memory(session.device, [probe.entry_point]))


def _fill(session: DecodeSession, probe: BandwidthProbe) -> list[rt.DeviceArray]:
    """Buffers of different words: memory that was never written may not be behind its addresses."""
    specs = probe.entry_point.arguments
    words = np.arange(specs[0].shape[0], dtype=np.dtype(specs[0].dtype))
    buffers: list[rt.DeviceArray] = []
    try:
        for _ in specs:
            buffers.append(rt.asdevicearray(session.device, words))
    except (RuntimeError, MemoryError) as error:
        raise PredecodeError(
            f"{len(specs)} buffers of {words.nbytes} bytes do not fit beside the model on {session.uri} "
            f"({first_line(error)}); bench an artifact with fewer layers or pages"
        ) from None
    return buffers
