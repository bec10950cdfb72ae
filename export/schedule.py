"""Which op calls share a dispatch: the schedules and fusions that an export can choose from.

Calls that do not depend on each other may run side by side in one grid. The level of a call is the length of the
longest chain of calls before it.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum

from predecode.custom_kernels.targets import RESIDENT_PER_UNIT


class Schedule(Enum):
    """How op calls of one level are put into dispatches.

    SERIAL composes calls that read results of the same call (projections of one activation); OVERLAP composes all
    calls of a level, so that the indexer's chain runs beside the attention's.
    """

    SERIAL = "serial"
    OVERLAP = "overlap"


class Fusion(Enum):
    """What runs in one dispatch from its first op to its last, level after level.

    CHAIN puts calls that first load weights into one grid with those of the levels before, which they wait for; it does
    not where ranks add up partial results between the two.
    LAYER fuses all calls of a layer in an entry point into one resident grid with barriers between the levels.
    """

    NONE = "none"
    CHAIN = "chain"
    LAYER = "layer"


MOST_PHASES = 4
"""Levels of a chain: each that waits holds registers and memory that the running ones could use."""
CLUSTERED_SHARE = 0.9
"""Of the workgroups that a device holds at once, how many it surely holds in clusters of more than two, which do not
fit everywhere."""
WAITING_SHARE = 0.5
"""Of the workgroups that a device holds at once, how many may wait that load nothing meanwhile."""


@dataclass(frozen=True, slots=True)
class ScheduledCall:
    """What a schedule needs to know of a call.

    ``sources`` are the calls (by index) whose results it reads, directly or through other operations; ``shape`` is
    what calls must agree in to share a dispatch (the threads of a workgroup); ``layer`` is the model layer whose
    weights it or its sources read, None before the first; ``workgroups`` are those of its grid, ``cluster`` of them in
    a cluster; ``reads_reduced`` where it reads what ranks add up; ``reads_early`` are those of its ``sources`` whose
    results it reads before it waits for other calls, None where it reads nothing before.
    """

    sources: frozenset[int]
    shape: Hashable
    layer: int | None = None
    workgroups: int = 1
    cluster: int = 1
    reads_reduced: bool = False
    reads_early: frozenset[int] | None = None


def levels(calls: Sequence[ScheduledCall]) -> list[int]:
    """Level of each call; ``calls`` are in program order."""
    result: list[int] = []
    for call in calls:
        result.append(1 + max((result[source] for source in call.sources), default=0))
    return result


def joined_levels(calls: Sequence[ScheduledCall]) -> list[int]:
    """Level of each call; one that shares its level with none of its shape is put off to the first where it does.

    That must be before the levels of those that read it.
    """
    level_of = levels(calls)
    alike = Counter((call.shape, level) for call, level in zip(calls, level_of, strict=True))
    read_at: dict[int, int] = {}
    for reader, level in zip(calls, level_of, strict=True):
        read_at |= {source: min(level, read_at.get(source, level)) for source in reader.sources}
    for i, call in enumerate(calls):
        later = (level for level in range(level_of[i] + 1, read_at.get(i, 0)) if alike[call.shape, level])
        joined = next(later, None)
        if joined and alike[call.shape, level_of[i]] == 1:
            alike.subtract([(call.shape, level_of[i])])
            alike.update([(call.shape, joined)])
            level_of[i] = joined
    return level_of


def dispatches(calls: Sequence[ScheduledCall], schedule: Schedule) -> list[tuple[int, ...]]:
    """The calls of each dispatch, as indices in program order; dispatches by level, then by first call."""
    level_of = levels(calls) if schedule is Schedule.SERIAL else joined_levels(calls)
    groups: list[list[int]] = []
    for index in sorted(range(len(calls)), key=lambda i: (level_of[i], i)):
        for group in groups:
            alike = level_of[group[0]] == level_of[index] and calls[group[0]].shape == calls[index].shape
            if alike and (schedule is Schedule.OVERLAP or _share_a_source(calls, group, index)):
                group.append(index)
                break
        else:
            groups.append([index])
    return [tuple(group) for group in groups]


def _share_a_source(calls: Sequence[ScheduledCall], group: Sequence[int], index: int) -> bool:
    return any(calls[member].sources & calls[index].sources for member in group)


def fused(calls: Sequence[ScheduledCall]) -> list[tuple[tuple[int, ...], ...]]:
    """The calls of each dispatch by phase, when all calls of a layer are fused; the others stand alone."""
    level_of = levels(calls)
    phases: dict[tuple, dict[int, list[int]]] = {}
    for index in sorted(range(len(calls)), key=lambda i: (level_of[i], i)):
        layer = calls[index].layer
        key = (layer,) if layer is not None else (None, index)
        phases.setdefault(key, {}).setdefault(level_of[index], []).append(index)
    return [tuple(tuple(group) for group in of_level.values()) for of_level in phases.values()]


def chained(calls: Sequence[ScheduledCall], resident: int) -> list[tuple[tuple[int, ...], ...]]:
    """The calls of each dispatch by phase, at most `MOST_PHASES`, when those that read early wait in one grid.

    So do few workgroups that do not. ``resident`` is how many workgroups a device holds at once; 0 where they do not
    start in the order of their indices, so that none may wait.
    """
    level_of = joined_levels(calls)
    by_level: dict[int, list[tuple[int, ...]]] = {}
    for group in dispatches(calls, Schedule.OVERLAP):
        by_level.setdefault(level_of[group[0]], []).append(group)
    chains: list[list[tuple[int, ...]]] = []
    for level, groups in by_level.items():
        # Beside another dispatch of its level a group may have sources that are in neither of its neighbours.
        alone = len(groups) == 1 and len(by_level.get(level - 1, ())) == 1
        joins = alone and chains and _follows(calls, chains[-1], groups[0], resident)
        following = by_level.get(level + 1, ())
        if joins and not (len(following) == 1 and _cuts_off(calls, chains[-1], groups[0], following[0], resident)):
            chains[-1].append(groups[0])
        else:
            chains += [[group] for group in groups]
    return [tuple(chain) for chain in chains]


def _follows(
    calls: Sequence[ScheduledCall], chain: Sequence[Sequence[int]], group: Sequence[int], resident: int
) -> bool:
    """Whether ``group`` may wait in one dispatch for ``chain``, whose last group is of the level before its own."""
    before = {i for phase in chain for i in phase}
    layers = {calls[i].layer for i in (*before, *group)}
    alike = calls[chain[0][0]].shape == calls[group[0]].shape
    late = [i for i in group if calls[i].reads_early is None]
    may_wait = _workgroups(calls, late) <= WAITING_SHARE * resident
    early = not any(calls[i].reads_early & before for i in group if i not in late)
    reduced = any(calls[i].reads_reduced for i in group)
    fits = len(chain) < MOST_PHASES and _fit_in_clusters(calls, (*chain, group), resident)
    return len(layers) == 1 and None not in layers and alike and early and may_wait and not reduced and fits


def _cuts_off(
    calls: Sequence[ScheduledCall],
    chain: Sequence[Sequence[int]],
    group: Sequence[int],
    following: Sequence[int],
    resident: int,
) -> bool:
    """Whether ``following`` may wait for ``group`` alone, but not where that waits for ``chain``.

    It reads early what ``chain`` makes: a chain ends where that has been made.
    """
    made = {i for phase in chain for i in phase}
    reads = any(calls[i].reads_early and calls[i].reads_early & made for i in following)
    return reads and _follows(calls, [group], following, resident)


def _fit_in_clusters(calls: Sequence[ScheduledCall], phases: Sequence[Sequence[int]], resident: int) -> bool:
    """Whether every phase fits on the device at once in the clusters of any, if it does without."""
    clusters = any(calls[i].cluster > RESIDENT_PER_UNIT for phase in phases for i in phase)
    held = [workgroups for phase in phases if (workgroups := _workgroups(calls, phase)) <= resident]
    return not clusters or max(held, default=0) <= CLUSTERED_SHARE * resident


def _workgroups(calls: Sequence[ScheduledCall], group: Sequence[int]) -> int:
    return sum(calls[i].workgroups for i in group)
