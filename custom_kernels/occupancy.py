"""How many workgroups of a kernel fit on one compute unit at once."""

from predecode.custom_kernels.code_object import Kernel
from predecode.custom_kernels.targets import ComputeUnit, Target
from predecode.pipelines.kernel_record import Occupancy

LIMITS = ("waves", "workgroups", "vector registers", "scalar registers", "workgroup memory")
"""What can stop one more workgroup, in the order in which a tie is told."""


def occupancy(kernel: Kernel, waves: int, target: Target) -> Occupancy:
    """Of workgroups of ``waves`` waves of ``kernel``. Source: LLVM `AMDGPUBaseInfo` (IsaInfo) for AMD; CUDA C++
    Programming Guide, "Technical specifications per compute capability", for NVIDIA.

    A compute unit deals a workgroup's waves out evenly over its SIMDs.
    """
    unit, resources = target.compute_unit, kernel.resources
    waves_by_limit = {
        "waves": unit.waves_per_simd,
        "vector registers": _fitting(resources.vector_registers, unit.vector_registers, unit.vector_register_granule),
        "scalar registers": _fitting(resources.scalar_registers, unit.scalar_registers, 1),
    }
    workgroups = {name: unit.simds * count // waves for name, count in waves_by_limit.items() if count is not None}
    workgroups["workgroups"] = _resident_workgroups(unit, waves)
    memory = resources.shared_memory_bytes + unit.shared_memory_reserved
    fitting = _fitting(memory, unit.shared_memory, unit.shared_memory_granule)
    if fitting is not None:
        workgroups["workgroup memory"] = fitting
    limit = min((name for name in LIMITS if name in workgroups), key=lambda name: workgroups[name])
    return Occupancy(
        workgroups_per_compute_unit=workgroups[limit],
        waves_per_simd=workgroups[limit] * waves / unit.simds,
        limited_by=limit,
    )


def _fitting(needed: int | None, available: int | None, granule: int) -> int | None:
    """How often ``needed``, rounded up to a ``granule``, fits in ``available``; None where it does not matter."""
    if not needed or not available:
        return None
    return available // (-(-needed // granule) * granule)


def _resident_workgroups(unit: ComputeUnit, waves: int) -> int:
    # A workgroup of one wave needs no barrier.
    return unit.workgroups if waves == 1 else min(unit.workgroups, unit.barriers)
