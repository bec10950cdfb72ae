"""What the manifest says of a hand-written kernel: its resources, how many of it run at once, its instructions."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

REGISTER_BYTES = 4
"""Of one lane of a vector register."""


@dataclass(frozen=True, slots=True)
class InstructionCounts:
    """Static instructions of a kernel: each counted once, however often it runs.

    ``loads`` and ``stores`` of global memory are counted by the bytes that one lane moves ("1" to "16").
    ``scalar_loads`` go through the scalar (NVIDIA: constant) cache, ``shared_memory`` is everything that uses the
    workgroup's memory unit, exchanges between lanes through it included. ``total`` has the other classes too.
    """

    total: int
    matrix: int
    loads: dict[str, int]
    stores: dict[str, int]
    scalar_loads: int
    atomics: int
    shared_memory: int
    barriers: int

    @classmethod
    def of(cls, instructions: Iterable[tuple[str, int]]) -> "InstructionCounts":
        """From the class of each instruction and, for a "load" or "store", its bytes per lane."""
        counted = Counter(instructions)
        classes = Counter()
        for (name, _), count in counted.items():
            classes[name] += count
        widths = {
            wanted: {str(size): n for (name, size), n in sorted(counted.items()) if name == wanted}
            for wanted in ("load", "store")
        }
        return cls(
            total=classes.total(),
            matrix=classes["matrix"],
            loads=widths["load"],
            stores=widths["store"],
            scalar_loads=classes["scalar_load"],
            atomics=classes["atomic"],
            shared_memory=classes["shared_memory"],
            barriers=classes["barrier"],
        )


@dataclass(frozen=True, slots=True)
class KernelResources:
    """What one launch of a kernel takes; None for what only AMD's chips have.

    Of a lane: ``vector_registers`` (the accumulator registers included), ``scratch_bytes``, and ``register_spills``,
    vector registers kept in memory. ``scalar_spills`` are scalar registers kept in lanes of vector ones.
    """

    vector_registers: int
    shared_memory_bytes: int
    scratch_bytes: int
    register_spills: int
    accumulator_registers: int | None = None
    scalar_registers: int | None = None
    scalar_spills: int | None = None


@dataclass(frozen=True, slots=True)
class Occupancy:
    """Workgroups and waves of a kernel that fit on one compute unit at once, and what allows no more of them."""

    workgroups_per_compute_unit: int
    waves_per_simd: float
    limited_by: str


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """A hand-written kernel that the module embeds; ``sha256`` is that of its code object.

    A CPU kernel has no resources, workgroup, occupancy or instruction counts.
    """

    symbol: str
    source: str
    sha256: str
    resources: KernelResources | None = None
    waves_per_workgroup: int | None = None
    occupancy: Occupancy | None = None
    instructions: InstructionCounts | None = None
