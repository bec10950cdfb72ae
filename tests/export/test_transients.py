"""Entry points with passed transients: what they need, that submitting them waits for nothing, and their numbers."""

import re

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels.targets import CPU, SM_90, TARGETS
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.audit import audit_entry_points
from predecode.export.compile import compile_module
from predecode.export.trace import Program, trace
from predecode.export.transients import Transients
from predecode.pipelines.manifest import EntryPoint, TensorSpec
from predecode.pipelines.submission import EntryFunction, Timeline, transient_memory

ARGUMENTS = (torch.rand(4, 64), torch.rand(64, 32), torch.rand(32, 64))


class TwoProducts(torch.nn.Module):
    """Its intermediate [4, 32] needs memory while it runs; it has two results."""

    def forward(self, x, first, second):
        between = torch.softmax(x @ first, 1)
        return between @ second, between.sum(1) + 1


def compiled(transients, target=CPU):
    module = trace([Program("main", TwoProducts(), ARGUMENTS)], target, lambda name: None)
    return compile_module(module, (), target, Toolchain(), transients)


def entry(module) -> EntryPoint:
    names = ["x", "first", "second"]
    audit = audit_entry_points(module.stream_ir, module.hal_ir, {"main": names}, (), {})["main"]
    arguments = tuple(
        TensorSpec(n, "input", tuple(a.shape), "float32", "row-major") for n, a in zip(names, ARGUMENTS, strict=True)
    )
    results = (
        TensorSpec("product", "output", (4, 64), "float32", "row-major"),
        TensorSpec("sums", "output", (4,), "float32", "row-major"),
    )
    return EntryPoint("main", "main", 4, arguments, results, audit)


def of_the_step(hal_ir: str) -> str:
    """The asynchronous function alone: the synchronous one waits for it, as it must."""
    return re.search(r'util\.func public @"?main\$async"?\(.*?\n  \}', hal_ir, re.DOTALL)[0]


@pytest.mark.parametrize("target", ["cpu", "sm_90", "gfx942"])
def test_a_step_frees_nothing_and_allocates_before_it_waits(target):
    step = of_the_step(compiled(Transients.PASSED, TARGETS[target]).hal_ir)
    waited = re.search(r"%(\w+): !hal\.fence, %\w+: !hal\.fence\)", step)[1]
    assert "queue.dealloca" not in step
    allocations = re.findall(r"queue\.alloca.*", step)
    assert allocations and all(f"wait(%{waited})" not in line for line in allocations)
    assert re.search(rf"fence\.join at\(\[.*%{waited}\b", step), "the execution waits for what the step waits for"


def test_a_step_that_allocates_its_transients_waits_for_them():
    step = of_the_step(compiled(Transients.ALLOCATED, SM_90).hal_ir)
    waited = re.search(r"%(\w+): !hal\.fence, %\w+: !hal\.fence\)", step)[1]
    assert "queue.dealloca" in step
    assert all(f"wait(%{waited})" in line for line in re.findall(r"queue\.alloca.*", step))


def test_its_commands_are_recorded_once():
    hal_ir = compiled(Transients.PASSED, SM_90).hal_ir
    assert "queue.execute.indirect" in of_the_step(hal_ir)
    assert "hal.command_buffer.create" not in of_the_step(hal_ir)


def test_the_audit_says_how_much_to_pass_and_calls_it_transient():
    audit = entry(compiled(Transients.PASSED)).audit
    assert audit.transient_bytes >= 4 * 32 * 4
    assert audit.transient_bytes == entry(compiled(Transients.ALLOCATED)).audit.transient_bytes
    assert "transient" in {b.name for d in audit.dispatches for b in d.bindings}


def test_steps_that_follow_each_other_share_the_memory():
    module = compiled(Transients.PASSED)
    point = entry(module)
    config = rt.Config("local-task")
    loaded = rt.VmModule.copy_buffer(config.vm_instance, module.vmfb)
    context = rt.SystemContext(vm_modules=[loaded], config=config).vm_context
    function = EntryFunction(context, loaded, point, transient_memory(config.device, [point]))
    timeline = Timeline(config.device)
    inputs = [(torch.rand(4, 64), *ARGUMENTS[1:]) for _ in range(20)]
    arrays = [[rt.asdevicearray(config.device, tensor.numpy()) for tensor in step] for step in inputs]
    results = [function.submit(config.device, timeline, step) for step in arrays]
    timeline.wait()
    for step, given in zip(inputs, results, strict=True):
        for wanted, array in zip(TwoProducts()(*step), given, strict=True):
            np.testing.assert_allclose(array.to_host(), wanted.numpy(), rtol=1e-5)
