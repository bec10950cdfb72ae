"""What a bench found: everything that its tables, page and JSON show, with the raw samples."""

import json
import re
import statistics
from dataclasses import dataclass

from predecode.pipelines.bench.launches import LaunchTime
from predecode.pipelines.manifest import Dispatch
from predecode.pipelines.records import decode, encode

FORMAT = "predecode bench 1"
_LAYER, _WEIGHT = re.compile(r"^layers\.\d+\."), re.compile(r"^(.+)\.(?:values|weight)$")


@dataclass(frozen=True, slots=True)
class DispatchReport:
    """One dispatch of the step: ``seconds`` per traced step (empty where dispatches could not be timed).

    ``weight`` names the matrices it reads, which tell calls of one kernel apart; ``expected_bytes``: the bytes of
    routed experts are those expected of even routing. ``floor_seconds`` are those of its bytes at the measured
    bandwidth, ``launch_floor_seconds`` those of a launch that only reads as many (None where none was timed).
    """

    name: str
    weight: str
    kind: str
    workgroups: tuple[int, ...]
    bytes: int
    expected_bytes: bool
    floor_seconds: float
    seconds: tuple[float, ...]
    launch_floor_seconds: float | None = None

    @property
    def median_seconds(self) -> float | None:
        """None where it could not be timed."""
        return statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True, slots=True)
class RunReport:
    """One batch: ``step_seconds`` has one value per repeat of ``steps_per_repeat`` steps, ``submission_seconds``
    what the host takes to submit one step to an idle device.

    ``dispatch_method`` says how dispatches were timed, or ``dispatch_reason`` why they were not.
    """

    rows: int
    context: str
    lengths: tuple[int, ...]
    layers: int | None
    steps_per_repeat: int
    step_seconds: tuple[float, ...]
    submission_seconds: tuple[float, ...]
    expected_experts: float | None
    dispatches: tuple[DispatchReport, ...]
    dispatch_method: str | None
    dispatch_reason: str | None
    notes: tuple[str, ...]

    @property
    def step(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.step_seconds)

    @property
    def floor(self) -> float:
        """Seconds that the step's bytes take at the measured bandwidth."""
        return sum(dispatch.floor_seconds for dispatch in self.dispatches)

    @property
    def launch_floor(self) -> float | None:
        """Seconds of as many launches that only read what the dispatches move; None where none were timed."""
        floors = [dispatch.launch_floor_seconds for dispatch in self.dispatches]
        return None if None in floors else sum(floors)

    @property
    def layer(self) -> float | None:
        """Median seconds of a layer; None for a whole step, which is more than its layers."""
        return self.step / self.layers if self.layers else None


@dataclass(frozen=True, slots=True)
class BenchReport:
    """Runs of one artifact on one device. ``bandwidth_samples`` are bytes per second, one per repeat; ``launches`` are
    those that only read, by their bytes."""

    model: str
    part: str
    target: str
    device: str
    device_name: str
    date: str
    tools: dict[str, str]
    method: str
    bandwidth: float
    bandwidth_samples: tuple[float, ...]
    bandwidth_bytes: int
    runs: tuple[RunReport, ...]
    launches: tuple[LaunchTime, ...] = ()
    format: str = FORMAT

    def to_json(self) -> str:
        """Every field, and per run the totals that follow from them."""
        document = encode(self)
        for run, values in zip(self.runs, document["runs"], strict=True):
            values["totals"] = {
                "step_seconds": run.step,
                "step_seconds_min": min(run.step_seconds),
                "step_seconds_max": max(run.step_seconds),
                "layer_seconds": run.layer,
                "floor_seconds": run.floor,
                "launch_floor_seconds": run.launch_floor,
                "bytes": sum(dispatch.bytes for dispatch in run.dispatches),
                "times_floor": run.step / run.floor if run.floor else None,
            }
        return json.dumps(document, indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "BenchReport":
        """What `to_json` wrote."""
        document = json.loads(text)
        for run in document["runs"]:
            run.pop("totals", None)
        return decode(cls, document)


@dataclass(frozen=True, slots=True)
class DispatchGroup:
    """Dispatches of a step that do the same in several layers. Times and bytes are those of one of them."""

    name: str
    weight: str
    kind: str
    count: int
    bytes: float
    expected_bytes: bool
    floor_seconds: float
    launch_floor_seconds: float | None
    seconds: float | None

    @property
    def lost_seconds(self) -> float | None:
        """Of all of them in a step, above their floors."""
        return None if self.seconds is None else self.count * (self.seconds - self.floor_seconds)


def weight_of(dispatch: Dispatch) -> str:
    """The matrices that a dispatch reads, such as "attention.qkv_a"; empty for one that reads none."""
    own = (_LAYER.sub("", binding.name) for binding in dispatch.bindings if _LAYER.match(binding.name))
    of_entries = (name for binding in dispatch.bindings for name in binding.parts)
    found = dict.fromkeys(match[1] for name in (*own, *of_entries) if (match := _WEIGHT.match(name)))
    return ", ".join(found)


def group_dispatches(run: RunReport) -> list[DispatchGroup]:
    """Groups of dispatches that differ in the layer only, those that lose most first (else the largest floors)."""
    members: dict[tuple, list[DispatchReport]] = {}
    for dispatch in run.dispatches:
        key = (dispatch.name, dispatch.weight, dispatch.kind, dispatch.workgroups)
        members.setdefault(key, []).append(dispatch)
    groups = [_group(dispatches) for dispatches in members.values()]
    return sorted(
        groups, key=lambda g: g.count * g.floor_seconds if g.seconds is None else g.lost_seconds, reverse=True
    )


def _group(dispatches: list[DispatchReport]) -> DispatchGroup:
    first = dispatches[0]
    return DispatchGroup(
        name=first.name,
        weight=first.weight,
        kind=first.kind,
        count=len(dispatches),
        bytes=statistics.mean(dispatch.bytes for dispatch in dispatches),
        expected_bytes=first.expected_bytes,
        floor_seconds=statistics.mean(dispatch.floor_seconds for dispatch in dispatches),
        launch_floor_seconds=_mean_of_all([dispatch.launch_floor_seconds for dispatch in dispatches]),
        seconds=_mean_of_all([dispatch.median_seconds for dispatch in dispatches]),
    )


def _mean_of_all(values: list[float | None]) -> float | None:
    """None if one is missing."""
    return None if None in values else statistics.mean(values)
