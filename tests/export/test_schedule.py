"""Schedules: which calls share a dispatch, and that sharing one changes no result."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FNUZ
from predecode.custom_kernels.layouts import TILED_16X16
from predecode.custom_kernels.targets import CPU, GFX942
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.schedule import Schedule, ScheduledCall, dispatches, levels
from predecode.export.tensors import to_numpy
from predecode.export.trace import Program, trace
from predecode.pipelines import emulation


def calls(*sources, shapes=None):
    shapes = shapes or [256] * len(sources)
    return [ScheduledCall(frozenset(of), shape) for of, shape in zip(sources, shapes, strict=True)]


# 0 -> 1, 2 -> (1: 3), (2: 4) -> 5; and 6, which depends on nothing.
DIAMOND = calls([], [0], [0], [1], [2], [3, 4], [])


def test_levels_are_longest_chains():
    assert levels(DIAMOND) == [1, 2, 2, 3, 3, 4, 1]
    assert levels(calls([], [0], [0, 1], [0])) == [1, 2, 3, 2]


def test_serial_composes_calls_that_read_the_same_call():
    assert dispatches(DIAMOND, Schedule.SERIAL) == [(0,), (6,), (1, 2), (3,), (4,), (5,)]


def test_overlap_composes_levels():
    assert dispatches(DIAMOND, Schedule.OVERLAP) == [(0, 6), (1, 2), (3, 4), (5,)]


def test_workgroups_of_other_sizes_stay_apart():
    apart = calls([], [0], [0], [0], shapes=[256, 256, 64, 256])
    for schedule in Schedule:
        assert dispatches(apart, schedule) == [(0,), (1, 3), (2,)]


@pytest.mark.parametrize("schedule", Schedule)
def test_no_call_comes_before_its_sources(schedule):
    torch.manual_seed(5)
    for _ in range(50):
        sources = [
            [j for j in range(i) if torch.rand(()) < 0.3] for i in range(int(torch.randint(1, 12, ())))
        ]
        order = dispatches(calls(*sources), schedule)
        place = {call: at for at, group in enumerate(order) for call in group}
        assert sorted(place) == list(range(len(sources)))
        assert all(place[source] < place[call] for call, of in enumerate(sources) for source in of)


class Projections(torch.nn.Module):
    """Two products of one activation, one of another, and one of the first product."""

    def forward(self, x, y, norm, first, second, weight_scales):
        def quantize(rows):
            return torch.ops.predecode.rms_norm_group_quant(rows, norm, 1e-6, "e4m3fnuz")[:2]

        def gemm(activation, weight):
            return torch.ops.predecode.gemm_fp8_blockscale(*activation, weight, weight_scales)

        of_x, of_y = quantize(x), quantize(y)
        left = gemm(of_x, first)
        below = gemm(quantize(left), second)
        return left + 1, below, gemm(of_x, second), gemm(of_y, first)


def weight(seed):
    generator = torch.Generator().manual_seed(seed)
    return TILED_16X16.pack(torch.randn(128, 128, generator=generator).to(E4M3FNUZ.dtype))


def activation(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(5, 128, generator=generator).to(torch.bfloat16)


ONES = torch.ones(128, dtype=torch.bfloat16)
ARGUMENTS = (activation(1), activation(2), ONES, weight(3), weight(4), torch.full((1, 1), 0.5))


def compiled(schedule, target):
    """Symbols of the kernels, and the compiled module."""
    module = trace([Program("main", Projections(), ARGUMENTS)], target, lambda name: None)
    kernels = inject(module, target, Toolchain(), schedule).kernels
    symbols = sorted(kernel.composition.symbol for kernel in kernels)
    return symbols, compile_module(module, kernels, target, Toolchain())


def results(module, device):
    config = rt.Config(device=device)
    loaded = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, module.vmfb), config)
    buffers = [rt.asdevicearray(device, to_numpy(tensor)) for tensor in ARGUMENTS]
    return [np.array(result.to_host()).view(np.uint16) for result in loaded.main(*buffers)]


def test_a_shared_dispatch_gives_the_same_bits():
    gemm, norm = "gemm_fp8_blockscale", "rms_norm_group_quant"
    serial, apart = compiled(Schedule.SERIAL, GFX942)
    overlap, together = compiled(Schedule.OVERLAP, GFX942)
    assert serial == [gemm, f"{gemm}__{gemm}", norm]
    assert overlap == [gemm, f"{gemm}__{gemm}__{gemm}", norm, f"{norm}__{norm}"]
    device = emulation.open_device("gfx942", strict=True)
    expected = Projections()(*ARGUMENTS)
    for one, other, wanted in zip(results(apart, device), results(together, device), expected, strict=True):
        np.testing.assert_array_equal(one, other)
        given = torch.from_numpy(one.view(np.int16)).view(torch.bfloat16).float()
        torch.testing.assert_close(given, wanted.float(), rtol=0.02, atol=0.1)
        assert wanted.float().abs().max() > 1


def test_cpu_functions_stay_apart():
    for schedule in Schedule:
        symbols, _ = compiled(schedule, CPU)
        assert symbols and all("__" not in symbol for symbol in symbols)
