"""Every check of a code object against its launch, and its negative twin. Objects are compiled here."""

import io
import re
import subprocess
from dataclasses import replace

import pytest
from elftools.elf.elffile import ELFFile

from predecode.custom_kernels import launch as launch_module
from predecode.custom_kernels import toolchain as toolchain_module
from predecode.custom_kernels.code_object import read_kernels
from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.launch_check import LaunchMismatch, check_launch
from predecode.custom_kernels.targets import CPU, GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import CodeObject, Toolchain, ToolchainError, assembler_command
from predecode.export.dispatch_mlir import extern_dispatch
from predecode.pipelines.errors import PredecodeError

SOURCE = """
#include "compiler.h"
struct Shared {
  volatile char work[SHARED_BYTES];
};

DEVICE void scale(Workgroup workgroup, Shared &shared, const float *x, float *y, int count) {
  shared.work[thread_id()] = 1;
  barrier();
  if constexpr (SCRATCH) {
    volatile float local[64];
    for (int i = 0; i < 64; ++i) local[i] = x[i];
    y[0] = local[count];
  }
  int i = workgroup.x * 128 + thread_id();
  float kept[KEPT + 1];
#pragma unroll
  for (int j = 0; j < KEPT; ++j) kept[j] = ((const volatile float *)x)[i + j];
  barrier();
#pragma unroll
  for (int j = 0; j < KEPT; ++j) y[i + j] = kept[j];
  if (i < count) y[i] = 2 * x[i];
}
"""
LAUNCH = Launch(
    source="scale.hip",
    symbol="scale",
    operands=("x",),
    constants=(5,),
    workgroups=(1, 1, 1),
    workgroup_size=(128, 1, 1),
    defines=(("SHARED_BYTES", 128), ("SCRATCH", 0), ("KEPT", 0)),
)
GPUS = [GFX942, GFX950, SM_90]


def alone(pointers=2, **changes):
    return Composition.of(replace(LAUNCH, **changes), pointers)


def alone_with(**defines):
    return alone(defines=tuple((dict(LAUNCH.defines) | defines).items()))


@pytest.fixture(scope="module")
def toolchain(tmp_path_factory):
    return Toolchain(cache=tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def sources(tmp_path, monkeypatch):
    (tmp_path / "scale.hip").write_text(SOURCE)
    monkeypatch.setattr(launch_module, "KERNEL_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_a_kernel_that_fits(target, toolchain):
    kernel = check_launch(toolchain.build(alone(), target), alone(), target)
    assert kernel.arch == target.arch and kernel.wave_size == target.wave_size
    assert [a.kind for a in kernel.arguments] == ["pointer", "pointer", "value"]


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
@pytest.mark.parametrize(
    ("change", "pointers", "message"),
    [
        ({"symbol": "scaled"}, 2, "no kernel named scaled; it holds scale"),
        ({"constants": (5, 6)}, 2, "the launch passes 2 pointers then 2 32-bit integers"),
        ({"constants": ()}, 2, "the launch passes 2 pointers then 0 32-bit integers"),
        ({}, 3, "the launch passes 3 pointers then 1 32-bit integers"),
        ({}, 1, "the launch passes 1 pointers then 1 32-bit integers"),
        ({"workgroup_size": (256, 1, 1)}, 2, "workgroups of at most 128, launched with 256"),
        ({"workgroups": (0, 1, 1)}, 2, "launched with an empty grid"),
    ],
)
def test_a_launch_that_does_not_fit(target, change, pointers, message, toolchain):
    code = toolchain.build(alone(), target)
    with pytest.raises(LaunchMismatch, match=message):
        check_launch(code, alone(pointers, **change), target)


@pytest.mark.parametrize(("built", "checked"), [(GFX942, GFX950), (GFX950, GFX942)], ids=lambda t: t.name)
def test_the_other_arch(built, checked, toolchain):
    with pytest.raises(LaunchMismatch, match=f"compiled for {built.arch}, the target is {checked.arch}"):
        check_launch(toolchain.build(alone(), built), alone(), checked)


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_too_much_shared_memory(target, toolchain):
    launch = alone_with(SHARED_BYTES=1024)
    code = toolchain.build(launch, target)
    assert check_launch(code, launch, target).resources.shared_memory_bytes == 1024
    with pytest.raises(LaunchMismatch, match=f"takes 1024 bytes of workgroup memory, {target.name} has 512"):
        check_launch(code, launch, replace(target, shared_memory=512))


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_scratch(target, toolchain):
    launch = alone_with(SCRATCH=1)
    with pytest.raises(LaunchMismatch, match="bytes of scratch per lane"):
        check_launch(toolchain.build(launch, target), launch, target)


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_spills(target, toolchain):
    fits, spills = alone_with(KEPT=100), alone_with(KEPT=600)
    kernel = check_launch(toolchain.build(fits, target), fits, target)
    assert kernel.resources.vector_registers > 100 and not kernel.resources.register_spills
    with pytest.raises(LaunchMismatch, match=r"spills \d+ registers"):
        check_launch(toolchain.build(spills, target), spills, target)


def assembled(ptx: str, folder, toolchain, target=SM_90) -> CodeObject:
    path = folder / "kernel.ptx"
    path.write_text(ptx)
    return CodeObject(path, "kernel.hip", ptx.encode(), toolchain.assemble(path, "kernel.hip", target))


def test_registers_are_those_of_the_machine_code(toolchain, tmp_path):
    code = toolchain.build(alone_with(KEPT=100), SM_90)
    ptxas, *flags = assembler_command(SM_90)
    subprocess.run([ptxas, *flags, str(code.path), "-o", str(tmp_path / "cubin")], check=True, capture_output=True)
    information = ELFFile(io.BytesIO((tmp_path / "cubin").read_bytes())).get_section_by_name(".nv.info").data()
    # Attribute 0x2f of a kernel (a symbol's index, then a figure) is its register count.
    (registers,) = re.findall(rb"\x04\x2f\x08\x00.{4}(.{4})", information, re.S)
    assert read_kernels(code)["scale"].resources.vector_registers == int.from_bytes(registers, "little") > 100


def test_a_workgroup_that_the_registers_do_not_allow(toolchain, tmp_path):
    ptx = toolchain.build(alone_with(KEPT=100), SM_90).data.decode()
    unlimited, directives = re.subn(r"^\.(?:maxntid|reqntid) .*\n", "", ptx, flags=re.M)
    assert directives == 1
    code = assembled(unlimited, tmp_path, toolchain)
    check_launch(code, alone(), SM_90)
    check_launch(code, alone(workgroup_size=(512, 1, 1)), SM_90)
    with pytest.raises(LaunchMismatch, match="a workgroup of 1024 does not fit on sm_90, for its vector registers"):
        check_launch(code, alone(workgroup_size=(1024, 1, 1)), SM_90)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ret;", "return;", r"assembling kernel.hip failed: .*line \d+; error .*'return'"),
        (".target sm_90", ".target sm_100", r"assembling kernel.hip failed: .*fatal .*\.target is higher"),
    ],
    ids=["broken", "for a later chip"],
)
def test_ptx_that_ptxas_refuses(old, new, message, toolchain, tmp_path):
    ptx = toolchain.build(alone(), SM_90).data.decode()
    assert old in ptx
    with pytest.raises(ToolchainError, match=message):
        assembled(ptx.replace(old, new), tmp_path, toolchain)


def test_ptx_for_an_earlier_chip(toolchain, tmp_path):
    ptx = toolchain.build(alone(), SM_90).data.decode().replace(".target sm_90a", ".target sm_80")
    with pytest.raises(LaunchMismatch, match="compiled for sm_80, the target is sm_90"):
        check_launch(assembled(ptx, tmp_path, toolchain), alone(), SM_90)


def test_the_assembler_runs_once(toolchain, monkeypatch):
    built = toolchain.build(alone(), SM_90)
    monkeypatch.setattr(Toolchain, "_assemble", None)
    assert toolchain.build(alone(), SM_90) == built and built.assembler_log


def test_a_missing_assembler_is_one_line(toolchain, monkeypatch):
    monkeypatch.setattr(toolchain_module, "_PTXAS_FOLDER", "nvidia.nowhere")
    with pytest.raises(ToolchainError, match="ptxas not found; install the `export` extra"):
        toolchain.build(alone(), SM_90)


def test_the_wrong_wave_size(toolchain):
    with pytest.raises(LaunchMismatch, match="waves of 64, gfx942 has waves of 32"):
        check_launch(toolchain.build(alone(), GFX942), alone(), replace(GFX942, wave_size=32))


def test_data_that_is_no_code_object(tmp_path, toolchain):
    for suffix in ("hsaco", "ptx"):
        with pytest.raises(PredecodeError, match="rebuild the kernel"):
            read_kernels(CodeObject(tmp_path / f"x.{suffix}", "x.hip", b"\x7fELF nothing"))


def test_a_source_that_does_not_compile(sources, toolchain):
    (sources / "scale.hip").write_text("int x = ;")
    with pytest.raises(ToolchainError, match=r"compiling scale.hip failed: .*error"):
        toolchain.build(alone(), GFX942)


def test_the_cache_follows_the_source(sources, toolchain):
    before = toolchain.build(alone(), GFX942)
    assert toolchain.build(alone(), GFX942).path == before.path
    (sources / "scale.hip").write_text(SOURCE.replace("2 * x[i]", "3 * x[i]"))
    after = toolchain.build(alone(), GFX942)
    assert after.path != before.path and after.sha256 != before.sha256


def test_a_missing_compiler_is_one_line(tmp_path):
    with pytest.raises(ToolchainError, match="nowhere/clang not found; install the `export` extra"):
        Toolchain(clang=("/nowhere/clang",), cache=tmp_path).build(alone(), GFX942)


def test_cpu_variants_have_their_own_symbols():
    first, second = (replace(LAUNCH, defines=(("COLUMNS", n),)) for n in (128, 256))
    assert first.linked_symbol != second.linked_symbol
    assert not CPU.has_hip_kernels


def test_arguments_that_the_body_does_not_take(toolchain):
    for mistaken in (alone(constants=()), alone(constants=(5, 6)), alone(pointers=3)):
        with pytest.raises(ToolchainError, match=r"compiling scale.hip failed: .*error"):
            toolchain.build(mistaken, GFX942)


def side_by_side(*launches):
    return Composition((tuple(Part(launch, (0, 1)) for launch in launches),), 2)


def test_parts_of_one_dispatch_need_one_workgroup_size():
    wide = replace(LAUNCH, symbol="wide", workgroup_size=(256, 1, 1))
    with pytest.raises(PredecodeError, match=r"workgroups differ: scale \(128, 1, 1\), wide \(256, 1, 1\) threads"):
        side_by_side(LAUNCH, wide)


def in_phases(resident, launch=LAUNCH):
    phase = (Part(launch, (0, 1), writes=frozenset([1])),)
    return Composition((phase, phase), 3, resident, state=2)


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_a_resident_grid_must_fit_the_device(target, toolchain):
    fits = in_phases(2 * target.compute_units)
    kernel = check_launch(toolchain.build(fits, target), fits, target)
    assert [a.kind for a in kernel.arguments] == ["pointer"] * 3
    too_many = in_phases(2 * target.compute_units + 1)
    message = f"{too_many.resident} workgroups with 128 bytes .* do not fit on {target.name} at once"
    with pytest.raises(LaunchMismatch, match=message):
        check_launch(toolchain.build(too_many, target), too_many, target)
    unit = target.compute_unit
    for_one = unit.shared_memory_granule + unit.shared_memory_reserved
    crowded = replace(target, compute_unit=replace(unit, shared_memory=for_one))
    with pytest.raises(LaunchMismatch, match="they would wait for each other for ever"):
        check_launch(toolchain.build(fits, target), fits, crowded)


@pytest.mark.parametrize("target", GPUS, ids=lambda t: t.name)
def test_a_resident_grid_may_spill_but_not_keep_arrays(target, toolchain):
    spills = in_phases(2, alone_with(KEPT=600).launches[0])
    assert check_launch(toolchain.build(spills, target), spills, target).resources.register_spills
    scratch = in_phases(2, alone_with(SCRATCH=1).launches[0])
    with pytest.raises(LaunchMismatch, match="bytes of scratch per lane"):
        check_launch(toolchain.build(scratch, target), scratch, target)


def test_one_phase_needs_no_resident_grid():
    with pytest.raises(ValueError, match="one phase needs no resident workgroups"):
        replace(Composition.of(LAUNCH, 2), resident=2)


def test_constants_are_32_bits():
    with pytest.raises(ValueError, match="does not fit in 32 bits"):
        replace(LAUNCH, constants=(2**32,))
    assert float_bits(1.0) == 0x3F800000


@pytest.mark.parametrize("cluster", [1, 2])
@pytest.mark.parametrize(("size", "requested"), [(48 * 1024, 0), (48 * 1024 + 16, 48 * 1024 + 16), (232448, 232448)])
def test_workgroup_memory_beyond_what_is_given_is_asked_for(size, requested, cluster, toolchain):
    defines = tuple((dict(LAUNCH.defines) | {"SHARED_BYTES": size}).items())
    launch = alone(defines=defines, cluster=cluster, workgroups=(2, 1, 1))
    code = toolchain.build(launch, SM_90)
    assert code.requested_shared_bytes == requested
    kernel = check_launch(code, launch, SM_90)
    assert kernel.resources.shared_memory_bytes == size
    text = extern_dispatch(launch, SM_90, code, ("tensor<8xf32>",), ("tensor<8xf32>",), {}).template
    assert (f"workgroup_local_memory = {size} : index" in text) == bool(requested)


def test_more_workgroup_memory_than_there_is(toolchain):
    launch = alone_with(SHARED_BYTES=232448 + 16)
    with pytest.raises(LaunchMismatch, match="takes 232464 bytes of workgroup memory, sm_90 has 232448"):
        check_launch(toolchain.build(launch, SM_90), launch, SM_90)
