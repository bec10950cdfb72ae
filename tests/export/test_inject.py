"""Injection of kernels into traced modules, on the CPU where the result can be run."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels import launch as launch_module
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.op import LIBRARY, OPS, define_op
from predecode.custom_kernels.targets import CPU, GFX942, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.trace import Program, trace

SOURCE = """
#include "cpu.h"
extern "C" void test_accumulate(BUFFER(x), BUFFER(total), BUFFER(copy), int64 columns, int64 factor_bits, int64 row,
                                int64, int64) {
  for (int64 i = row * columns; i < (row + 1) * columns; ++i) {
    POINTER(float, copy)[i] = POINTER(const float, x)[i] * bits_to_float(uint32(factor_bits)) + OFFSET;
    POINTER(float, total)[i] += POINTER(const float, x)[i];
  }
}
"""


def reference(x, total, factor, offset):
    return x * factor + offset, total + x


def fake(x, total, factor, offset):
    return torch.empty_like(x), torch.empty_like(total)


def launch(target, call):
    if call["x"].shape[1] % 2:
        return None
    rows, columns = call["x"].shape
    constants = (columns, float_bits(call["factor"]))
    defines = (("OFFSET", call["offset"]),)
    return Launch("accumulate.cpp", "test_accumulate", ("x", "total"), constants, (rows, 1, 1), defines=defines)


@pytest.fixture(scope="module", autouse=True)
def op():
    schema = "test_accumulate(Tensor x, Tensor total, float factor, int offset) -> (Tensor, Tensor)"
    yield define_op(schema, reference, fake, in_place={1: "total"}, launch=launch)
    OPS.pop("test_accumulate")
    assert LIBRARY


@pytest.fixture
def toolchain(tmp_path, monkeypatch):
    (tmp_path / "accumulate.cpp").write_text(SOURCE)
    monkeypatch.setattr(launch_module, "KERNEL_FOLDER", tmp_path)
    return Toolchain(cache=tmp_path / "cache")


class Twice(torch.nn.Module):
    """Calls the op twice with different constants and once with a shape that has no kernel."""

    def forward(self, x, total, odd):
        first, total = torch.ops.predecode.test_accumulate(x, total, 2.0, 1)
        second, total = torch.ops.predecode.test_accumulate(first + 1, total, 0.5, 3)
        third, _ = torch.ops.predecode.test_accumulate(odd, odd, 2.0, 1)
        return second, total, third


ARGUMENTS = (torch.rand(3, 6), torch.rand(3, 6), torch.rand(3, 5))


def test_kernels_run_and_write_in_place(toolchain):
    module = trace([Program("main", Twice(), ARGUMENTS)], CPU, lambda name: None)
    kernels = inject(module, CPU, toolchain).kernels
    assert len(kernels) == 2, "one object per variant"
    vmfb = compile_module(module, kernels, CPU, toolchain).vmfb
    config = rt.Config("local-sync")
    loaded = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)
    given = [rt.asdevicearray(config.device, tensor.numpy()) for tensor in ARGUMENTS]
    results = loaded.main(*given)
    for result, expected in zip(results, Twice()(*ARGUMENTS), strict=True):
        np.testing.assert_allclose(result.to_host(), expected.numpy(), rtol=1e-6)
    np.testing.assert_array_equal(given[1].to_host(), results[1].to_host())


def test_the_same_input_compiles_to_the_same_bytes_and_only_once(toolchain, tmp_path):
    def build(cache):
        own = Toolchain(cache=cache)
        module = trace([Program("main", Twice(), ARGUMENTS)], CPU, lambda name: None)
        return compile_module(module, inject(module, CPU, own).kernels, CPU, own).vmfb

    first = build(tmp_path / "one")
    assert build(tmp_path / "two") == first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert build(tmp_path / "one") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "one").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("target", [GFX942, SM_90], ids=lambda t: t.name)
def test_an_op_without_a_kernel_is_traced_as_its_reference(target):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.ops.predecode.test_accumulate(x, x, 2.0, 1)[0]

    module = trace([Program("main", Odd(), (torch.rand(3, 5),))], target, lambda name: None)
    assert "test_accumulate" not in str(module)
