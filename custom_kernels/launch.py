"""How a kernel is launched: the bindings it takes, its 32-bit constants, its grid, and where its code is."""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

KERNEL_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Launch:
    """One dispatch of a hand-written kernel.

    The kernel ``symbol`` of ``source`` (a file of this package) receives pointers first: the tensor arguments
    named in ``operands``, in that order, then one pointer per result that is not written in place, in result
    order; then ``constants`` as 32-bit integers (pass a float through `float_bits`). A result that reuses an
    argument's buffer has no pointer of its own. ``defines`` are compile-time macros of the source.

    ``workgroup_size`` and ``workgroups`` are (x, y, z); CPU kernels ignore the former. ``workgroups_per_unit``
    limits the registers so that a compute unit can hold that many at once; 0 leaves them to the compiler.

    ``cluster`` workgroups that follow each other along x run at the same time and read each other's workgroup memory
    (NVIDIA only; see device/cluster_sums.h). ``when_resident`` is what a resident grid runs instead, which cannot hold
    clusters and shares little memory and few registers. Operands in ``reads_early`` are loaded before the kernel
    waits for the ops that make the others, in a dispatch of several phases. ``makers`` tells for each result how many
    of the first workgroups must have ended before it is there; empty where all must.

    There the words of a result need not wait for each other (see device/mailbox.h): a kernel that ``posts`` can post
    those of its only result, and one that ``takes`` an operand reads each word of it once, and can take it.
    """

    source: str
    symbol: str
    operands: tuple[str, ...]
    constants: tuple[int, ...]
    workgroups: tuple[int, int, int]
    workgroup_size: tuple[int, int, int] = (1, 1, 1)
    defines: tuple[tuple[str, int], ...] = ()
    workgroups_per_unit: int = 0
    cluster: int = 1
    when_resident: "Launch | None" = None
    reads_early: tuple[str, ...] = ()
    makers: tuple[int, ...] = ()
    posts: bool = False
    takes: str = ""

    def __post_init__(self):
        if self.workgroups[0] % self.cluster:
            raise ValueError(f"{self.symbol}: a grid of {self.workgroups} in clusters of {self.cluster}")
        if unknown := set(self.reads_early) - set(self.operands):
            raise ValueError(f"{self.symbol}: reads {sorted(unknown)} early, which are not among {self.operands}")
        if self.takes and self.takes not in self.operands:
            raise ValueError(f"{self.symbol}: takes {self.takes}, which is not among {self.operands}")
        if any(not 0 < count <= self.workgroup_count for count in self.makers):
            raise ValueError(f"{self.symbol}: results made by {self.makers} of a grid of {self.workgroups}")
        for constant in self.constants:
            if not -(2**31) <= constant < 2**32:
                raise ValueError(f"{self.symbol}: constant {constant} does not fit in 32 bits")

    @property
    def workgroup_count(self) -> int:
        """Workgroups of the grid."""
        return math.prod(self.workgroups)

    @property
    def linked_symbol(self) -> str:
        """Symbol of a CPU kernel: all of a module's objects are linked into one, so variants must not share it."""
        return "_".join([self.symbol, *(f"{name}_{value}" for name, value in self.defines)]).replace("-", "minus_")

    @property
    def source_path(self) -> Path:
        """Path of the kernel's source."""
        return KERNEL_FOLDER / self.source


def float_bits(value: float) -> int:
    """The float32 ``value`` as the 32-bit integer with the same bits; a kernel casts it back."""
    return struct.unpack("<I", struct.pack("<f", value))[0]
