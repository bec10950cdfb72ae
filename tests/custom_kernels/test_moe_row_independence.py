"""What the experts compute for a row has the same bits whatever the other rows are, in what order and how many:
gfx942 machine code on the emulated device, and the CPU."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels.op import OPS
from predecode.custom_kernels.targets import CPU, GFX942
from predecode.export.tensors import to_numpy
from predecode.pipelines import emulation
from tests.custom_kernels.cases.block_scaled import quantized_rows, tiled_weight
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.moe_gate_up import routing
from tests.custom_kernels.compiled_cases import compile_cases, load, tensors_of

ROWS, EXPERTS_PER_ROW, EXPERTS = 20, 4, 30
SELECTIONS = {
    "all": list(range(ROWS)),
    "reversed": list(range(ROWS))[::-1],
    "alone": [4],
    "the last alone": [ROWS - 1],
    "one many times": [5] * 30 + [1, 5, 5],
    "beyond a block of rows": [*range(ROWS), *[3] * 40, *range(ROWS)],
}


def gate_up_arguments(generator, ids, element_format):
    values, scales = quantized_rows(generator, ROWS, 256, element_format)
    weight = tiled_weight(generator, (EXPERTS, 32, 256), element_format)
    return lambda rows: (values[rows], scales[:, rows].contiguous(), ids[rows], *weight)


def down_arguments(generator, ids, element_format):
    values, scales = quantized_rows(generator, ROWS * EXPERTS_PER_ROW, 256, element_format)
    values, scales = values.reshape(ROWS, -1), scales.reshape(2, ROWS, -1)
    expert_weights = torch.rand(ids.shape, generator=generator)
    weight = tiled_weight(generator, (EXPERTS, 48, 256), element_format)
    return lambda rows: (
        values[rows].reshape(-1, 256),
        scales[:, rows].reshape(2, -1),
        ids[rows],
        expert_weights[rows],
        *weight,
    )


def _run(vmfb: bytes, cases: list[Case], device: rt.HalDevice) -> list[np.ndarray]:
    config = rt.Config(device=device)
    module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)
    results = []
    for i, case in enumerate(cases):
        given = module[f"case_{i}"](*(rt.asdevicearray(device, to_numpy(tensor)) for tensor in tensors_of(case)))
        results.append(np.array(given.to_host()))  # a copy: the buffer is the device's
    return results


@pytest.mark.parametrize("target", [CPU, GFX942], ids=["cpu", "gfx942"])
@pytest.mark.parametrize(("name", "arguments"), [("moe_gate_up", gate_up_arguments), ("moe_down", down_arguments)])
def test_rows_do_not_depend_on_each_other(name, arguments, target):
    load(name, target.element_format)
    generator = torch.Generator().manual_seed(23)
    ids = routing(generator, ROWS, EXPERTS_PER_ROW, EXPERTS)
    arguments_of = arguments(generator, ids, target.element_format)
    cases = [Case(label, arguments_of(rows), ()) for label, rows in SELECTIONS.items()]
    emulated = target.device == "hip"
    device = emulation.open_device(target.arch, strict=True) if emulated else rt.get_device("local-sync")
    results = _run(compile_cases(OPS[name], cases, target), cases, device)
    by_row = [result.reshape(len(rows), -1) for result, rows in zip(results, SELECTIONS.values(), strict=True)]
    every = by_row[0]
    assert len({row.tobytes() for row in every}) == ROWS
    for rows, given, label in zip(SELECTIONS.values(), by_row, SELECTIONS, strict=True):
        for row, bits in zip(rows, given, strict=True):
            assert bits.tobytes() == every[row].tobytes(), (label, row)
