"""Checks of a code object against the launch it is embedded for. The compiler makes none of them."""

import math

from predecode.custom_kernels.code_object import Kernel, read_kernels
from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.occupancy import occupancy
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.kernel_record import REGISTER_BYTES

MOST_POINTERS = 16
"""Buffers that the runtime's GPU drivers bind to one dispatch at most."""


class LaunchMismatch(PredecodeError):
    """A code object does not fit its launch."""


class RegistersSpilled(LaunchMismatch):
    """A kernel keeps registers in memory: one of several ops may do with fewer of them."""


def check_launch(code: CodeObject, launch: Composition, target: Target) -> Kernel:
    """Refuse ``code`` unless its kernel fits ``launch`` on ``target``; `RegistersSpilled` where it does otherwise."""
    kernels = read_kernels(code)
    if launch.symbol not in kernels:
        raise LaunchMismatch(
            f"{launch.source}: no kernel named {launch.symbol}; it holds {', '.join(sorted(kernels)) or 'none'}"
        )
    kernel = kernels[launch.symbol]
    for problem in _problems(kernel, launch, target):
        raise LaunchMismatch(f"{launch.source}: {problem}")
    # A resident entry's registers are limited so that its grid fits, and its pointers are many: it may spill.
    for spilled in () if launch.resident else _spilled(kernel):
        raise RegistersSpilled(f"{launch.source}: {spilled}")
    scratch = kernel.resources.scratch_bytes
    if scratch > REGISTER_BYTES * kernel.resources.register_spills:
        raise LaunchMismatch(f"{launch.source}: takes {scratch} bytes of scratch per lane; keep arrays in registers")
    return kernel


def _problems(kernel: Kernel, launch: Composition, target: Target):
    if kernel.arch != target.arch:
        yield f"compiled for {kernel.arch}, the target is {target.arch}"
    kinds = [(a.kind, a.bytes) for a in kernel.arguments]
    expected = [("pointer", 8)] * launch.pointers + [("value", 4)] * len(launch.constants)
    if kinds != expected:
        yield (
            f"takes {_count(kinds)}, the launch passes {launch.pointers} pointers then {len(launch.constants)} "
            "32-bit integers; declare exactly these, pointers first, and use no hidden argument"
        )
    if launch.pointers > MOST_POINTERS:
        yield f"takes {launch.pointers} buffers, the runtime binds at most {MOST_POINTERS} to a dispatch"
    threads = math.prod(launch.workgroup_size)
    if threads > kernel.largest_workgroup:
        yield f"built for workgroups of at most {kernel.largest_workgroup}, launched with {threads}"
    if min(launch.workgroups) < 1:
        yield f"launched with an empty grid {launch.workgroups}"
    if kernel.wave_size != target.wave_size:
        yield f"built for waves of {kernel.wave_size}, {target.name} has waves of {target.wave_size}"
    if kernel.resources.shared_memory_bytes > target.shared_memory:
        yield (
            f"takes {kernel.resources.shared_memory_bytes} bytes of workgroup memory, "
            f"{target.name} has {target.shared_memory}"
        )
    fitting = occupancy(kernel, -(-threads // target.wave_size), target)
    if not fitting.workgroups_per_compute_unit:
        yield f"a workgroup of {threads} does not fit on {target.name}, for its {fitting.limited_by}"
    of_unit = min(target.resident_workgroups(kernel.resources.shared_memory_bytes), fitting.workgroups_per_compute_unit)
    if launch.resident > target.compute_units * of_unit:
        yield (
            f"{launch.resident} workgroups with {kernel.resources.shared_memory_bytes} bytes of workgroup memory each "
            f"do not fit on {target.name} at once; they would wait for each other for ever"
        )


def _spilled(kernel: Kernel):
    if kernel.resources.register_spills:
        yield f"spills {kernel.resources.register_spills} registers; use fewer per lane"
    if kernel.resources.scalar_spills:
        yield f"spills {kernel.resources.scalar_spills} scalar registers; pass fewer values"


def _count(kinds: list[tuple[str, int]]) -> str:
    return ", ".join(f"{kind} of {size} bytes" for kind, size in kinds) or "no arguments"
