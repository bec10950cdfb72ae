"""Which commands of a schedule need which earlier ones, from the buffer ranges that they read and write."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Access:
    """Bytes [start, stop) of a buffer that a command touches.

    ``reads``: what was there is used. ``writes``: what is there afterwards is the command's; with ``overwrites`` all
    of it, else only a part, such as one step's tokens of a cache.
    """

    buffer: Hashable
    start: int
    stop: int
    reads: bool = False
    writes: bool = False
    overwrites: bool = False


def dependencies(commands: Sequence[Sequence[Access]]) -> list[tuple[int, ...]]:
    """For each command the earlier ones (by index, ascending) that wrote something it reads.

    A range used again for other data makes no dependency: that is a matter of memory, not of data.
    """
    result = []
    for index, accesses in enumerate(commands):
        sources = set()
        for access in accesses:
            if access.reads:
                sources |= _writers(commands[:index], access)
        result.append(tuple(sorted(sources)))
    return result


def _writers(commands: Sequence[Sequence[Access]], read: Access) -> set[int]:
    """The commands whose writes are still there when ``read`` happens."""
    writers = set()
    unseen = [(read.start, read.stop)]
    for index in reversed(range(len(commands))):
        overwritten = []
        for access in commands[index]:
            if access.writes and access.buffer == read.buffer:
                if any(start < access.stop and access.start < stop for start, stop in unseen):
                    writers.add(index)
                if access.overwrites:
                    overwritten.append((access.start, access.stop))
        for written in overwritten:
            unseen = [piece for span in unseen for piece in _without(span, written)]
        if not unseen:
            break
    return writers


def _without(span: tuple[int, int], removed: tuple[int, int]) -> list[tuple[int, int]]:
    """What is left of ``span`` outside ``removed``."""
    pieces = (span[0], min(span[1], removed[0])), (max(span[0], removed[1]), span[1])
    return [piece for piece in pieces if piece[0] < piece[1]]


def through(dependencies: Sequence[tuple[int, ...]], kept: Sequence[int]) -> list[tuple[int, ...]]:
    """The dependencies among the commands ``kept`` (ascending), others (copies, fills) being passed through."""
    place = {command: i for i, command in enumerate(kept)}
    sources: list[set[int]] = []
    for before in dependencies:
        sources.append(set().union(*({place[b]} if b in place else sources[b] for b in before)))
    return [tuple(sorted(sources[command])) for command in kept]
