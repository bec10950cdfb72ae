"""Occupancy against the compiler's own figure, and against limits worked out by hand."""

import re
import subprocess
from dataclasses import replace

import pytest

from predecode.custom_kernels.code_object import Kernel
from predecode.custom_kernels.occupancy import occupancy
from predecode.custom_kernels.ptx_instructions import count_ptx_instructions
from predecode.custom_kernels.targets import GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.pipelines.kernel_record import KernelResources

SOURCE = """
extern "C" __attribute__((global, amdgpu_flat_work_group_size({threads}, {threads}))) void kernel(float *result) {{
  static __attribute__((shared)) volatile char memory[{memory}];
  memory[0] = 1;
  asm volatile("" ::: "{register}");
  result[0] = memory[1];
}}
"""


def kernel(vector, scalar=None, memory=0) -> Kernel:
    resources = KernelResources(vector, memory, 0, 0, scalar_registers=scalar)
    return Kernel("kernel", "arch", (), 1024, 64, resources, count_ptx_instructions(""))


def compiled(target, tmp_path, **choices) -> dict[str, int]:
    """Figures that the compiler writes as comments into the assembly of a kernel."""
    source, assembly = tmp_path / "kernel.hip", tmp_path / "kernel.s"
    source.write_text(SOURCE.format(**choices))
    flags = ["-cc1", "-triple", "amdgcn-amd-amdhsa", "-target-cpu", target.arch, "-x", "hip", "-fcuda-is-device"]
    command = [*Toolchain().clang, *flags, "-O3", "-mcode-object-version=5", "-S", "-o", str(assembly), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    return {name: int(value) for name, value in re.findall(r"^; (\w+): (\d+)", assembly.read_text(), re.M)}


@pytest.mark.parametrize("target", [GFX942, GFX950], ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("register", "memory"),
    [
        *((register, 4) for register in ("v10", "v63", "v64", "v95", "v127", "v128", "v255", "s101")),
        *(("v10", kib * 1024) for kib in (16, 20, 40, 64)),
    ],
)
def test_waves_per_simd_as_the_compiler_counts_them(register, memory, target, tmp_path):
    said = compiled(target, tmp_path, threads=256, register=register, memory=memory)
    given = kernel(said["TotalNumVgprs"], said["TotalNumSgprs"], memory)
    assert occupancy(given, 4, target).waves_per_simd == said["Occupancy"]


@pytest.mark.parametrize(
    ("given", "waves", "target", "workgroups", "limit"),
    [
        (kernel(64, 32), 4, GFX942, 8, "waves"),
        (kernel(65, 32), 4, GFX942, 7, "vector registers"),
        (kernel(100, 32), 8, GFX942, 2, "vector registers"),
        (kernel(512, 32), 4, GFX942, 1, "vector registers"),
        (kernel(32, 102), 4, GFX942, 7, "scalar registers"),
        (kernel(32, 32), 1, GFX942, 32, "waves"),
        (kernel(32, 32), 2, GFX942, 16, "waves"),
        (kernel(32, 32, 1024), 16, GFX942, 2, "waves"),
        (kernel(32, 32, 8193), 4, GFX942, 7, "workgroup memory"),
        (kernel(32, 32, 33 * 1024), 4, GFX942, 1, "workgroup memory"),
        (kernel(32, 32, 33 * 1024), 4, GFX950, 4, "workgroup memory"),
        (kernel(32, memory=40 * 1024), 8, SM_90, 5, "workgroup memory"),
        (kernel(32), 1, SM_90, 32, "workgroups"),
        (kernel(32), 8, SM_90, 8, "waves"),
        (kernel(32), 3, SM_90, 21, "waves"),
        (kernel(33), 8, SM_90, 6, "vector registers"),
        (kernel(128), 8, SM_90, 2, "vector registers"),
        (kernel(129), 8, SM_90, 1, "vector registers"),
        (kernel(255), 8, SM_90, 1, "vector registers"),
        (kernel(255), 16, SM_90, 0, "vector registers"),
    ],
)
def test_limits(given, waves, target, workgroups, limit):
    found = occupancy(given, waves, target)
    assert (found.workgroups_per_compute_unit, found.limited_by) == (workgroups, limit)
    assert found.waves_per_simd == workgroups * waves / 4


def test_barriers_limit_workgroups_of_several_waves():
    scarce = replace(GFX942, compute_unit=replace(GFX942.compute_unit, barriers=3))
    assert occupancy(kernel(8, 8), 2, scarce).workgroups_per_compute_unit == 3
    assert occupancy(kernel(8, 8), 1, scarce).workgroups_per_compute_unit == 32
