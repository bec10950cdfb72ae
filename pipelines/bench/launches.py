"""How long launches take that only read memory: what a dispatch of as many bytes cannot be much faster than.

A launch of few bytes is far from the bandwidth that gigabytes are read with: its workgroups start, wait for the first
bytes and end. The artifact's probe has such launches, of as few bytes as dispatches have and as many.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from predecode.pipelines.bench.dispatch_times import DispatchTimes
from predecode.pipelines.manifest import EntryPoint
from predecode.pipelines.quantities import format_bytes, format_seconds


@dataclass(frozen=True, slots=True)
class LaunchTime:
    """A launch that only reads ``bytes``: its seconds, one value per time that it was traced."""

    bytes: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


def launch_times(entry: EntryPoint, traced: DispatchTimes) -> tuple[LaunchTime, ...]:
    """Of the launches of ``entry``, those of fewest bytes first."""
    dispatches = zip(entry.audit.dispatches, traced.seconds, strict=True)
    times = (LaunchTime(d.bytes_read + d.bytes_written, seconds) for d, seconds in dispatches)
    return tuple(sorted(times, key=lambda time: time.bytes))


def launch_floor(launches: Sequence[LaunchTime], count: float, bandwidth: float) -> float | None:
    """Seconds of a launch that reads ``count`` bytes, on straight lines between those that were timed.

    Fewer bytes than the fewest take as long as these, and what are more than the most is read at ``bandwidth``, in
    bytes per second. None where no launches were timed.
    """
    if not launches:
        return None
    most = launches[-1]
    beyond = max(0.0, count - most.bytes) / bandwidth
    return beyond + float(np.interp(count, [t.bytes for t in launches], [t.median for t in launches]))


def describe_launches(launches: Sequence[LaunchTime]) -> str:
    """Such as "1.05 MB in 1.50 µs, 2.10 MB in 1.81 µs"; empty where none were timed."""
    return ", ".join(f"{format_bytes(time.bytes)} in {format_seconds(time.median)}" for time in launches)
