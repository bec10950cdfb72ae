"""What a run of the rivals found, for the tables and the JSON file."""

import json
import statistics
from dataclasses import dataclass, field

from predecode.custom_kernels.composition import shown_ops
from predecode.custom_kernels.prologues import consumer_of
from predecode.pipelines.bench.report import BenchReport, RunReport, group_dispatches
from predecode.pipelines.quantities import format_seconds
from predecode.pipelines.records import decode, encode

FORMAT = "predecode rivals 1"


class RivalError(Exception):
    """Why a rival has no time, in one line: it is missing, does not fit the model, or gave a wrong result."""


@dataclass(frozen=True, slots=True)
class LayerResult:
    """Seconds of one layer of a chain of all of them, one value per repeat; or ``reason``, why there are none.

    ``deviation`` is the median over rows of the relative distance to the reference, None where it was not checked.
    """

    name: str
    rows: int
    seconds: tuple[float, ...] = ()
    deviation: float | None = None
    reason: str | None = None

    @property
    def median(self) -> float | None:
        """None without times."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True, slots=True)
class KernelResult:
    """One op by a rival's kernel: as `LayerResult`, per call, beside our dispatch of the same run.

    ``bytes`` are those that the op must move; ``ours`` seconds, and ``ours_with`` what else that dispatch does.
    """

    op: str
    name: str
    rows: int
    bytes: int
    ours: float | None
    ours_with: str
    remark: str
    seconds: tuple[float, ...] = ()
    deviation: float | None = None
    reason: str | None = None

    @property
    def median(self) -> float | None:
        """None without times."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(slots=True)
class RivalsReport:
    """Everything of one run. ``bandwidth`` bytes per second, as bench measured it in this process."""

    artifact: str
    context: str
    device: str
    versions: dict[str, str]
    method: str
    bench: BenchReport | None = None
    layers: list[LayerResult] = field(default_factory=list)
    kernels: list[KernelResult] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    format: str = FORMAT

    @property
    def bandwidth(self) -> float | None:
        """None where predecode itself could not be measured."""
        return self.bench.bandwidth if self.bench else None

    def run_of(self, rows: int) -> RunReport | None:
        """Our own steps of ``rows`` rows."""
        return next((run for run in self.bench.runs if run.rows == rows), None) if self.bench else None

    def layer_floor(self, rows: int) -> float | None:
        """Seconds that the bytes of a layer of ``rows`` rows ask for; None where we have no run of them."""
        run = self.run_of(rows)
        return run.floor / run.layers if run and run.layers else None

    @property
    def row_counts(self) -> list[int]:
        """Row counts of any result, ascending."""
        return sorted({result.rows for result in (*self.layers, *self.kernels)})

    def layers_of(self, rows: int) -> list[LayerResult]:
        """Layers of ``rows`` rows, the fastest first, those without a time last."""
        results = (result for result in self.layers if result.rows == rows)
        return sorted(results, key=lambda result: (result.median is None, result.median or 0.0))

    def to_json(self) -> str:
        """Every field, with the raw samples."""
        return json.dumps(encode(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "RivalsReport":
        """Inverse of `to_json`; raises `ValueError` or `RecordError` where it is none."""
        return decode(cls, json.loads(text))


def time_or_reason(result: LayerResult | KernelResult) -> str:
    """The median, or why there is none."""
    return result.reason or format_seconds(result.median)


def our_dispatch(run: RunReport | None, op: str, weight: str) -> tuple[float | None, str]:
    """Seconds of our dispatch of ``op`` (on the matrices ``weight``, if it reads any), and what else is in it.

    The op may make its rows itself.
    """
    for group in group_dispatches(run) if run else ():
        ops, weights = [consumer_of(name) for name in shown_ops(group.name)], group.weight.split(", ")
        if op in ops and (not weight or weight in weights):
            ops.remove(op)
            others = [other for other in weights if other and other != weight]
            return group.seconds, " + ".join(others if len(others) >= len(ops) else ops)
    return None, ""
