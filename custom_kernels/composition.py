"""What one dispatch runs: the body of an op, or of several ops side by side or one after the other.

Every GPU entry is generated from bodies (see device/entry.h), so an op's kernel is written once however its
dispatches are cut. Parts of one phase are independent and share the grid. Phases follow each other in one of two ways:
with a barrier of the whole grid between them, which is resident as a whole and whose workgroups take the parts'
workgroups in turn; or with workgroups of their own, which start beside the earlier ones, load what depends on nothing,
and wait.
"""

from dataclasses import dataclass

from predecode.custom_kernels.launch import Launch
from predecode.pipelines.errors import PredecodeError

SIDE_BY_SIDE, THEN = "__", "___"
"""Between the ops' names in a composed entry's symbol: of one phase, and of the next."""


@dataclass(frozen=True, slots=True)
class Part:
    """One op's ``launch``, and which of the entry's pointers its body receives, in the body's order.

    ``offsets`` are bytes added to each (empty: none), ``writes`` the pointers behind which it writes. ``awaited`` are
    how many of its first workgroups make what later phases read (None: all); the next phase waits for no others. A part
    that ``posts`` its result need not be waited for, and one that ``takes`` it does not wait (see `Launch`).
    """

    launch: Launch
    pointers: tuple[int, ...]
    offsets: tuple[int, ...] = ()
    writes: frozenset[int] = frozenset()
    awaited: int | None = None
    posts: bool = False
    takes: bool = False

    @property
    def workgroups(self) -> int:
        """Workgroups of the part."""
        return self.launch.workgroup_count

    @property
    def awaited_workgroups(self) -> int:
        """Those of the first workgroups that the next phase waits for."""
        return self.workgroups if self.awaited is None else self.awaited


@dataclass(frozen=True, slots=True)
class Composition:
    """The entry of one dispatch: it takes ``pointers`` pointers, then ``constants``.

    With several phases, ``state`` is the pointer of what their workgroups wait by (see device/grid.h). If ``resident``
    is not 0 there are so many workgroups, which must all fit on the device at once, and a barrier between phases.
    Otherwise each phase has workgroups of its own, which wait for the awaited ones of the phase before.
    """

    phases: tuple[tuple[Part, ...], ...]
    pointers: int
    resident: int = 0
    state: int = 0

    def __post_init__(self):
        sizes = {part.launch.workgroup_size for part in self.parts}
        if len(sizes) > 1:
            threads = {launch.workgroup_size: launch.symbol for launch in self.launches}
            listed = ", ".join(f"{threads[size]} {size}" for size in sorted(sizes))
            raise PredecodeError(
                f"one dispatch cannot hold ops whose workgroups differ: {listed} threads; give them one size, or "
                "export them apart"
            )
        if self.resident and len(self.phases) == 1:
            raise ValueError(f"{self.symbol}: one phase needs no resident workgroups")
        if self.resident and self.cluster > 1:
            raise ValueError(f"{self.symbol}: workgroups of a resident grid cannot be in clusters")

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
        """32-bit constants of all parts, in order; those of several phases, too many to pass, are in the code."""
        if len(self.phases) > 1:
            return ()
        return tuple(constant for launch in self.launches for constant in launch.constants)

    @property
    def workgroups(self) -> tuple[int, int, int]:
        """The grid: the resident workgroups, a lone part's own grid, or all parts' workgroups in a row."""
        if self.resident:
            return self.resident, 1, 1
        if len(self.parts) == 1:
            return self.launches[0].workgroups
        return sum(in_clusters(part.workgroups, self.cluster) for part in self.parts), 1, 1

    @property
    def cluster(self) -> int:
        """Workgroups of a cluster (see `Launch`); with several parts, each begins with a cluster of its own."""
        return max(launch.cluster for launch in self.launches)

    @property
    def workgroup_size(self) -> tuple[int, int, int]:
        """Threads of a workgroup."""
        return self.launches[0].workgroup_size


def in_clusters(workgroups: int, cluster: int) -> int:
    """``workgroups``, and those that fill the last cluster."""
    return -(-workgroups // cluster) * cluster


def shown_name(symbol: str) -> str:
    """A composed entry's symbol as people read it: ``a+b`` side by side, ``a, b`` one after the other."""
    return symbol.replace(THEN, ", ").replace(SIDE_BY_SIDE, "+")


def shown_ops(name: str) -> list[str]:
    """The ops of a `shown_name`, in order."""
    return [op for phase in name.split(", ") for op in phase.split("+")]
