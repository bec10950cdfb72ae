"""Times of single dispatches: what a tracer saw, set against the list of dispatches in the manifest."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import EntryPoint


class DispatchTimesUnavailable(PredecodeError):
    """Why there are no times of single dispatches; a bench goes on without them and says so."""


@dataclass(frozen=True, slots=True)
class Event:
    """One execution of a dispatch, as a tracer reports it. Times in nanoseconds of one clock."""

    name: str
    workgroups: tuple[int, int, int]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class DispatchTimes:
    """Seconds of each dispatch of a step, in the manifest's order, one value per traced step; and how traced."""

    seconds: tuple[tuple[float, ...], ...]
    method: str


def match(events: Sequence[Event], segments: Sequence[EntryPoint], method: str) -> DispatchTimes:
    """Deal ``events`` of whole steps, in the order of execution, to the dispatches of ``segments``.

    Raises `DispatchTimesUnavailable` unless every event has its dispatch's name and workgroups.
    """
    listed = [(entry, dispatch) for entry in segments for dispatch in entry.audit.dispatches]
    if not events or len(events) % len(listed):
        raise DispatchTimesUnavailable(
            f"{len(events)} dispatches were traced, not a multiple of the {len(listed)} that the manifest lists"
        )
    seconds: list[list[float]] = [[] for _ in listed]
    for number, event in enumerate(events):
        place = number % len(listed)
        entry, dispatch = listed[place]
        if _plain(event.name, entry) != _plain(dispatch.name, entry) or event.workgroups != dispatch.workgroups:
            raise DispatchTimesUnavailable(
                f"dispatch {place} of the traced steps is {event.name!r} over {_text(event.workgroups)} workgroups, "
                f"the manifest lists {dispatch.name!r} over {_text(dispatch.workgroups)}"
            )
        seconds[place].append((event.end - event.start) * 1e-9)
    return DispatchTimes(tuple(tuple(values) for values in seconds), method)


def _plain(name: str, entry: EntryPoint) -> str:
    """The name without what compilers add: a prefix and number to kernels, the entry point to compiled dispatches."""
    name = re.sub(r"^predecode\.(.*)\.\d+$", r"\1", name)
    name = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return name.removeprefix(re.sub(r"[^A-Za-z0-9]+", "_", f"{entry.name}$async_"))


def _text(workgroups: tuple[int, ...]) -> str:
    return " x ".join(map(str, workgroups))
