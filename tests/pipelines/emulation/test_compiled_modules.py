"""Modules as IREE compiles them, run on the emulated device, equal the same functions run on the CPU."""

import functools

import iree.compiler.tools as compiler
import iree.runtime
import numpy as np
import pytest

from predecode.pipelines import emulation
from tests.pipelines.emulation.compiled_cases import CASES, FLOAT8, CompiledCase

CPU_FLAGS = [
    "--iree-hal-target-device=local",
    "--iree-hal-local-target-device-backends=llvm-cpu",
    "--iree-llvmcpu-target-cpu=generic",
]


def _specialized(case: CompiledCase, arch: str) -> str:
    return case.mlir.replace("FLOAT8", FLOAT8[arch][0])


def _load(module: bytes, config: iree.runtime.Config):
    return iree.runtime.load_vm_module(iree.runtime.VmModule.copy_buffer(config.vm_instance, module), config)


@functools.cache
def _cpu_modules(arch: str):
    """Every case in one module, a function each: one compilation instead of many."""
    functions = [_specialized(case, arch).replace("@main", f"@{case.name}") for case in CASES]
    flags = sorted({flag for case in CASES for flag in case.flags})
    module = compiler.compile_str("\n".join(functions), input_type="auto", extra_args=[*CPU_FLAGS, *flags])
    return _load(module, iree.runtime.Config("local-sync"))


def _expected(case: CompiledCase, arch: str, inputs: list[np.ndarray]) -> np.ndarray:
    if case.expected:
        return case.expected(inputs, arch)
    return _cpu_modules(arch)[case.name](*[np.array(value) for value in inputs]).to_host()


def _emulated(case: CompiledCase, arch: str, strict: bool, inputs: list[np.ndarray]) -> np.ndarray:
    flags = ["--iree-hal-target-device=hip", f"--iree-rocm-target={arch}", *case.flags]
    module = compiler.compile_str(_specialized(case, arch), input_type="auto", extra_args=flags)
    device = emulation.open_device(arch, strict)  # One each: the driver gives a device up after a fault.
    try:
        return _load(module, iree.runtime.Config(device=device)).main(*inputs).to_host()
    except Exception as error:
        raise emulation.pending_fault() or error from error


def _check(case: CompiledCase, got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == expected.dtype and got.shape == expected.shape
    if case.tolerance == 0:
        np.testing.assert_array_equal(got.view(np.uint8), expected.view(np.uint8))
        return
    got, expected = got.astype(np.float64), expected.astype(np.float64)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(expected))
    error = np.abs(got - expected) / (np.abs(expected) + 1)
    worst = np.unravel_index(np.nanargmax(error), error.shape)
    assert error[worst] <= case.tolerance, f"at {worst}: got {got[worst]}, expected {expected[worst]}"


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_compiled_module_equals_the_cpu(case, arch):
    inputs = case.inputs(np.random.default_rng(0), arch)
    _check(case, _emulated(case, arch, True, inputs), _expected(case, arch, inputs))


def test_a_wrong_input_would_be_seen():
    """The comparison itself can fail: the same module on other data is refused by it."""
    case = CASES[0]
    inputs = case.inputs(np.random.default_rng(0), "gfx942")
    other = case.inputs(np.random.default_rng(1), "gfx942")
    with pytest.raises(AssertionError, match="got"):
        _check(case, _expected(case, "gfx942", other), _expected(case, "gfx942", inputs))
