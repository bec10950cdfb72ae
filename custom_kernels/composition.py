"""What one dispatch runs: the body of an op, or those of several independent ops side by side in one grid.

Every GPU entry is generated from bodies (see device/entry.h), so an op's kernel is written once however its
dispatches are cut. Parts that are composed take the same number of threads per workgroup.
"""

import math
from dataclasses import dataclass

from predecode.custom_kernels.launch import Launch

NAME_SEPARATOR = "__"
"""Between the ops' names in a composed entry's symbol."""


@dataclass(frozen=True, slots=True)
class Part:
    """One op's ``launch``, and which of the entry's pointers its body receives, in the body's order."""

    launch: Launch
    pointers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Composition:
    """``parts`` that run in one dispatch of a kernel with ``pointers`` pointers, then all parts' constants."""

    parts: tuple[Part, ...]
    pointers: int

    def __post_init__(self):
        sizes = {part.launch.workgroup_size for part in self.parts}
        if len(sizes) > 1:
            raise ValueError(
                f"{self.symbol}: parts of one dispatch have workgroups of {sorted(sizes)} threads; give them one size"
            )

    @classmethod
    def of(cls, launch: Launch, pointers: int) -> "Composition":
        """The dispatch that runs ``launch`` alone."""
        return cls((Part(launch, tuple(range(pointers))),), pointers)

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The parts' launches."""
        return tuple(part.launch for part in self.parts)

    @property
    def symbol(self) -> str:
        """Name of the entry."""
        return NAME_SEPARATOR.join(launch.symbol for launch in self.launches)

    @property
    def source(self) -> str:
        """The sources' names, for messages."""
        return "+".join(dict.fromkeys(launch.source for launch in self.launches))

    @property
    def constants(self) -> tuple[int, ...]:
        """32-bit constants of all parts, in order."""
        return tuple(constant for launch in self.launches for constant in launch.constants)

    @property
    def workgroups(self) -> tuple[int, int, int]:
        """The grid: a lone part's own, or all parts' workgroups in a row."""
        if len(self.parts) == 1:
            return self.launches[0].workgroups
        return sum(math.prod(launch.workgroups) for launch in self.launches), 1, 1

    @property
    def workgroup_size(self) -> tuple[int, int, int]:
        """Threads of a workgroup."""
        return self.launches[0].workgroup_size
