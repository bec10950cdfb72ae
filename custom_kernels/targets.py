"""Compilation targets as data: everything that depends on the chip is asked here."""

from dataclasses import dataclass

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ElementFormat
from predecode.custom_kernels.ptx_entry import GIVEN_SHARED_MEMORY
from predecode.pipelines.chips import H200, MI300X, MI355X, Chip


@dataclass(frozen=True, slots=True)
class ComputeUnit:
    """What the waves on one compute unit (NVIDIA: streaming multiprocessor) share.

    ``vector_registers`` is per lane and SIMD, ``scalar_registers`` per SIMD (None: not a limit), memory in bytes;
    ``shared_memory_reserved`` is added to what each workgroup asks for. ``workgroups`` is the most at once,
    ``barriers`` the most of those with several waves.
    """

    simds: int
    waves_per_simd: int
    workgroups: int
    barriers: int
    vector_registers: int
    vector_register_granule: int
    scalar_registers: int | None
    shared_memory: int
    shared_memory_granule: int
    shared_memory_reserved: int


RESIDENT_PER_UNIT = 2
"""Workgroups on each compute unit of a grid that is resident as a whole; its registers are limited to allow it."""
LARGEST_BODY_MEMORY = GIVEN_SHARED_MEMORY
"""Most bytes of workgroup memory of any op's body in a resident grid."""


@dataclass(frozen=True, slots=True)
class Target:
    """One chip that an artifact is compiled for.

    ``device`` is the IREE runtime driver, ``memory_bandwidth`` is in bytes per second (vendor's figure; 0 where
    no floor time is quoted), ``shared_memory`` in bytes per workgroup; ``compute_unit`` is None for a CPU.
    """

    name: str
    device: str
    arch: str
    element_format: ElementFormat
    wave_size: int
    compute_units: int
    compute_unit: ComputeUnit | None
    shared_memory: int
    memory_bandwidth: float
    compile_flags: tuple[str, ...]
    executable_format: str
    """MLIR attribute of the executable target that an injected code object is embedded for."""

    @property
    def kernel_arch(self) -> str:
        """What kernels are compiled for: NVIDIA's arch with the instructions that later ones drop (`wgmma`)."""
        return f"{self.arch}a" if self.device == "cuda" else self.arch

    @property
    def has_hip_kernels(self) -> bool:
        """True where kernels are HIP sources embedded as code objects."""
        return self.device in ("hip", "cuda")

    @property
    def unit_shared_memory(self) -> int:
        """Bytes that the workgroups on one compute unit share, of which one workgroup's reserve is taken off."""
        return self.compute_unit.shared_memory - self.compute_unit.shared_memory_reserved if self.compute_unit else 0

    @property
    def resident_share(self) -> int:
        """Bytes of workgroup memory of each of `RESIDENT_PER_UNIT` workgroups on a compute unit."""
        unit = self.compute_unit
        return unit.shared_memory // RESIDENT_PER_UNIT - unit.shared_memory_reserved

    def resident_workgroups(self, shared_memory: int) -> int:
        """Workgroups that a compute unit holds at once, of an entry whose registers allow `RESIDENT_PER_UNIT`."""
        return min(RESIDENT_PER_UNIT, self.unit_shared_memory // max(shared_memory, 1))

    @property
    def resident_per_unit(self) -> int:
        """Workgroups per compute unit of a resident grid: as many as each may have this target's usual memory."""
        return self.resident_workgroups(LARGEST_BODY_MEMORY)

    @property
    def resident_grid(self) -> int:
        """Workgroups that the device holds at once, of usual memory."""
        return self.compute_units * self.resident_per_unit

    @property
    def starts_in_order(self) -> bool:
        """True where workgroups start in the order of their indices, so that later ones may wait for earlier ones."""
        return self.device == "cuda"


def _rocm(arch: str, element_format: ElementFormat, chip: Chip, shared_memory: int, shared_memory_granule: int):
    return Target(
        name=arch,
        device="hip",
        arch=arch,
        element_format=element_format,
        wave_size=64,
        compute_units=chip.compute_units,
        compute_unit=ComputeUnit(
            simds=4,
            waves_per_simd=8,
            workgroups=32,
            barriers=16,
            vector_registers=512,
            vector_register_granule=8,
            scalar_registers=800,
            shared_memory=shared_memory,
            shared_memory_granule=shared_memory_granule,
            shared_memory_reserved=0,
        ),
        shared_memory=shared_memory,
        memory_bandwidth=chip.memory_bandwidth,
        compile_flags=("--iree-hal-target-device=hip", f"--iree-rocm-target={arch}"),
        executable_format=f'#hal.executable.target<"rocm", "rocm-hsaco-fb", {{target_arch = "{arch}"}}>',
    )


GFX942 = _rocm("gfx942", E4M3FNUZ, MI300X, 64 * 1024, 512)
GFX950 = _rocm("gfx950", E4M3FN, MI355X, 160 * 1024, 1280)
# The compiler has no sm_90 code generation; its own dispatches are sm_89 PTX, which the driver compiles on Hopper.
SM_90 = Target(
    name="sm_90",
    device="cuda",
    arch="sm_90",
    element_format=E4M3FN,
    wave_size=32,
    compute_units=H200.compute_units,
    compute_unit=ComputeUnit(
        simds=4,
        waves_per_simd=16,
        workgroups=32,
        barriers=32,
        vector_registers=512,
        vector_register_granule=8,
        scalar_registers=None,
        shared_memory=228 * 1024,
        shared_memory_granule=128,
        shared_memory_reserved=1024,
    ),
    shared_memory=227 * 1024,
    memory_bandwidth=H200.memory_bandwidth,
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
    compute_unit=None,
    shared_memory=0,
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
