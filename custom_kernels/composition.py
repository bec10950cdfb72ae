"""What one dispatch runs: the body of an op, or of several ops side by side or one after the other.

Every GPU entry is generated from bodies (see device/entry.h), so an op's kernel is written once however its
dispatches are cut. Parts of one phase are independent and share the grid. Phases follow each other with a barrier
of the whole grid between them; such a grid is resident as a whole, and its workgroups take the parts' workgroups
in turn.
"""

import math
from dataclasses import dataclass

from predecode.custom_kernels.launch import Launch
from predecode.pipelines.errors import PredecodeError

SIDE_BY_SIDE, THEN = "__", "___"
"""Between the ops' names in a composed entry's symbol: of one phase, and of the next."""


@dataclass(frozen=True, slots=True)
class Part:
    """One op's ``launch``, and which of the entry's pointers its body receives, in the body's order.

    ``offsets`` are bytes added to each (empty: none), ``writes`` the pointers behind which it writes.
    """

    launch: Launch
    pointers: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    writes: frozenset[int] = frozenset()

    @property
    def workgroups(self) -> int:
        """Workgroups of the part."""
        return math.prod(self.launch.workgroups)


@dataclass(frozen=True, slots=True)
class Composition:
    """The entry of one dispatch: it takes ``pointers`` pointers, then ``constants``.

    With several phases, ``resident`` is the number of workgroups, which must all fit on the device at once, and
    the pointer ``barrier`` is the state of the grid's barrier (see device/grid.h); with one phase both are 0.
    """

    phases: tuple[tuple[Part, ...], ...]
    pointers: int
    resident: int = 0
    barrier: int = 0

    def __post_init__(self):
        sizes = {part.launch.workgroup_size for part in self.parts}
        if len(sizes) > 1:
            threads = {launch.workgroup_size: launch.symbol for launch in self.launches}
            listed = ", ".join(f"{threads[size]} {size}" for size in sorted(sizes))
            raise PredecodeError(
                f"one dispatch cannot hold ops whose workgroups differ: {listed} threads; give them one size, or "
                "export them apart"
            )
        if (len(self.phases) > 1) != (self.resident > 0):
            raise ValueError(f"{self.symbol}: {len(self.phases)} phases and {self.resident} resident workgroups")

    @classmethod
    def of(cls, launch: Launch, pointers: int) -> "Composition":
        """The dispatch that runs ``launch`` alone."""
        return cls(((Part(launch, tuple(range(pointers))),),), pointers)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All phases' parts."""
        return tuple(part for phase in self.phases for part in phase)

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The parts' launches."""
        return tuple(part.launch for part in self.parts)

    @property
    def symbol(self) -> str:
        """Name of the entry."""
        return THEN.join(SIDE_BY_SIDE.join(part.launch.symbol for part in phase) for phase in self.phases)

    @property
    def source(self) -> str:
        """The sources' names, for messages: the first and the last of many."""
        names = list(dict.fromkeys(launch.source for launch in self.launches))
        return "+".join(names) if len(names) <= 3 else f"{names[0]}+...+{names[-1]} ({len(self.parts)} ops)"

    @property
    def constants(self) -> tuple[int, ...]:
        """32-bit constants of all parts, in order; those of a resident grid, too many to pass, are in its code."""
        if self.resident:
            return ()
        return tuple(constant for launch in self.launches for constant in launch.constants)

    @property
    def workgroups(self) -> tuple[int, int, int]:
        """The grid: the resident workgroups, a lone part's own grid, or all parts' workgroups in a row."""
        if self.resident:
            return self.resident, 1, 1
        if len(self.parts) == 1:
            return self.launches[0].workgroups
        return sum(part.workgroups for part in self.parts), 1, 1

    @property
    def workgroup_size(self) -> tuple[int, int, int]:
        """Threads of a workgroup."""
        return self.launches[0].workgroup_size


def shown_name(symbol: str) -> str:
    """A composed entry's symbol as people read it: ``a+b`` side by side, ``a, b`` one after the other."""
    return symbol.replace(THEN, ", ").replace(SIDE_BY_SIDE, "+")
