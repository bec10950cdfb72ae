"""A row's results are the same bits wherever it stands among an entry point's rows, and whatever the others hold."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels.targets import CPU, GFX942
from predecode.export.tensors import to_numpy
from predecode.pipelines import emulation
from tests.custom_kernels.compiled_cases import compile_cases, load

# Op -> a case of many rows, the arguments with a row per row, and where the rows are in each result (a cache has none).
OPS = {
    "latent_norms_and_cache": ("65 rows", ("qkv_a", "positions", "slot_mapping"), (0, 1, None)),
    "q_absorb_rope_cat": ("16 rotated", ("q", "positions"), (0,)),
    "sparse_mla": ("24 heads, 63 rows", ("query", "slots"), (0, 0)),
    "value_up_group_quant": ("17 rows, 7 parts", ("parts", "log_sums"), (0, 1)),
}


def device_of(target):
    return emulation.open_device(target.arch, strict=True) if target.has_hip_kernels else rt.get_device("local-sync")


class Compiled:
    """One case of an op, compiled for `target` and run on the bytes of other arguments."""

    def __init__(self, name, target):
        label, self.of_rows, self.axes = OPS[name]
        op, cases = load(name, target.element_format)
        self.case = next(case for case in cases if case.label.startswith(label))
        names = [argument.name for argument in op.overload._schema.arguments]
        self.arguments = dict(zip(names, self.case.arguments, strict=True))
        self.device = device_of(target)
        config = rt.Config(device=self.device)
        vmfb = compile_cases(op, [self.case], target)
        self.module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)

    def run(self, changes):
        arguments = (self.arguments | changes).values()
        buffers = [rt.asdevicearray(self.device, to_numpy(a)) for a in arguments if isinstance(a, torch.Tensor)]
        results = self.module.case_0(*buffers)
        results = results if isinstance(results, tuple) else (results,)
        arrays = [np.array(result.to_host()) for result in results]  # a copy: the buffer is the device's
        return [array.view(f"u{array.itemsize}") for array in arrays]

    def moved(self, order):
        """Arguments with the rows `order` of the case's."""
        return {name: self.arguments[name][order] for name in self.of_rows}

    def padded_but(self, kept):
        """Arguments of which only row `kept` holds anything."""
        arguments = self.moved(torch.arange(len(self.arguments[self.of_rows[0]])))
        for name, tensor in arguments.items():
            codes = tensor.view(torch.int8) if tensor.itemsize == 1 else tensor
            codes[torch.arange(len(codes)) != kept] = -1 if name in ("slots", "slot_mapping") else 0
        return arguments


def take(results, axes, order):
    """Rows `order` of each result that has rows; of the others, all."""
    return [r if axis is None else np.take(r, order, axis) for r, axis in zip(results, axes, strict=True)]


@pytest.mark.parametrize("target", [CPU, GFX942], ids=lambda t: t.name)
@pytest.mark.parametrize("name", OPS)
def test_rows_do_not_see_each_other(name, target):
    compiled = Compiled(name, target)
    count = len(compiled.arguments[compiled.of_rows[0]])
    expected, again = compiled.run({}), compiled.run({})
    assert all(map(np.array_equal, expected, again)), "run to run"

    order = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    moved = compiled.run(compiled.moved(order))
    assert all(map(np.array_equal, moved, take(expected, compiled.axes, order.numpy()))), "rows in another order"
    assert not np.array_equal(moved[0], expected[0])

    kept = 2
    padded = compiled.run(compiled.padded_but(kept))
    for axis, given, wanted in zip(compiled.axes, padded, expected, strict=True):
        if axis is not None:
            assert np.array_equal(np.take(given, kept, axis), np.take(wanted, kept, axis)), "beside padding rows"
