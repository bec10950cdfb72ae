"""Compilation targets as data: everything that depends on the chip is asked here."""

from dataclasses import dataclass

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ElementFormat

RESIDENT_PER_UNIT = 2
"""Workgroups on each compute unit of a grid that is resident as a whole; its registers are limited to allow it."""


@dataclass(frozen=True, slots=True)
class Target:
    """One chip that an artifact is compiled for.

    ``device`` is the IREE runtime driver, ``memory_bandwidth`` is in bytes per second (vendor's figure; 0 where
    no floor time is quoted), ``shared_memory`` in bytes per workgroup, ``unit_shared_memory`` per compute unit.
    """

    name: str
    device: str
    arch: str
    element_format: ElementFormat
    wave_size: int
    compute_units: int
    shared_memory: int
    unit_shared_memory: int
    memory_bandwidth: float
    compile_flags: tuple[str, ...]
    executable_format: str
    """MLIR attribute of the executable target that an injected code object is embedded for."""

    @property
    def has_hip_kernels(self) -> bool:
        """True where kernels are HIP sources embedded as code objects."""
        return self.device in ("hip", "cuda")

    def resident_workgroups(self, shared_memory: int) -> int:
        """Workgroups that a compute unit holds at once, of an entry whose registers allow `RESIDENT_PER_UNIT`."""
        return min(RESIDENT_PER_UNIT, self.unit_shared_memory // max(shared_memory, 1))


def _rocm(arch: str, element_format: ElementFormat, compute_units: int, shared_memory: int, bandwidth: float):
    return Target(
        name=arch,
        device="hip",
        arch=arch,
        element_format=element_format,
        wave_size=64,
        compute_units=compute_units,
        shared_memory=shared_memory,
        unit_shared_memory=shared_memory,
        memory_bandwidth=bandwidth,
        compile_flags=("--iree-hal-target-device=hip", f"--iree-rocm-target={arch}"),
        executable_format=f'#hal.executable.target<"rocm", "rocm-hsaco-fb", {{target_arch = "{arch}"}}>',
    )


GFX942 = _rocm("gfx942", E4M3FNUZ, 304, 64 * 1024, 5.3e12)
GFX950 = _rocm("gfx950", E4M3FN, 256, 160 * 1024, 8.0e12)
# The compiler has no sm_90 code generation; its own dispatches are sm_89 PTX, which the driver compiles on Hopper.
SM_90 = Target(
    name="sm_90",
    device="cuda",
    arch="sm_90",
    element_format=E4M3FN,
    wave_size=32,
    compute_units=132,
    shared_memory=48 * 1024,
    unit_shared_memory=227 * 1024,
    memory_bandwidth=4.8e12,
    compile_flags=("--iree-hal-target-device=cuda", "--iree-cuda-target=sm_89"),
    executable_format='#hal.executable.target<"cuda", "cuda-nvptx-fb">',
)
CPU = Target(
    name="cpu",
    device="local-task",
    arch="x86_64",
    element_format=E4M3FN,
    wave_size=1,
    compute_units=1,
    shared_memory=0,
    unit_shared_memory=0,
    memory_bandwidth=0.0,
    # x86-64-v3 instead of "host": the same artifact on every build machine.
    compile_flags=(
        "--iree-hal-target-device=local",
        "--iree-hal-local-target-device-backends=llvm-cpu",
        "--iree-llvmcpu-target-cpu=x86-64-v3",
    ),
    executable_format='#hal.executable.target<"llvm-cpu", "embedded-elf-x86_64">',
)

TARGETS = {t.name: t for t in (CPU, GFX942, GFX950, SM_90)}
