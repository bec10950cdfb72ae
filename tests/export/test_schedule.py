"""Schedules: which calls share a dispatch, and that sharing one changes no result."""

import re
from dataclasses import replace

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.custom_kernels import add_rms_norm_group_quant, gemm_fp8_blockscale, rms_norm_group_quant  # noqa: F401
from predecode.custom_kernels.entry_source import entry_source
from predecode.custom_kernels.formats import E4M3FNUZ
from predecode.custom_kernels.launch_check import RegistersSpilled, check_launch
from predecode.custom_kernels.layouts import TILED_16X16
from predecode.custom_kernels.op import OPS
from predecode.custom_kernels.targets import CPU, GFX942, Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.compile import compile_module
from predecode.export.inject import inject
from predecode.export.schedule import Fusion, Schedule, ScheduledCall, dispatches, fused, joined_levels, levels
from predecode.export.schedule import chained as chained_on
from predecode.export.tensors import to_numpy
from predecode.export.trace import Program, trace
from predecode.pipelines import emulation
from predecode.pipelines.errors import PredecodeError


def calls(*sources, shapes=None, layers=None):
    shapes, layers = shapes or [256] * len(sources), layers or [None] * len(sources)
    return [ScheduledCall(frozenset(of), *rest) for of, *rest in zip(sources, shapes, layers, strict=True)]


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


# 0 -> 1 and 2 -> 3 -> 4, which reads all three.
LARGE_BESIDE_SMALL = ([], [0], [0], [2], [1, 2, 3])


def test_a_call_that_could_share_no_dispatch_waits_for_one_that_it_can():
    late = calls(*LARGE_BESIDE_SMALL, shapes=[256, 1024, 256, 1024, 256])
    assert dispatches(late, Schedule.OVERLAP) == [(0,), (2,), (1, 3), (4,)]
    assert dispatches(late, Schedule.SERIAL) == [(0,), (1,), (2,), (3,), (4,)]


@pytest.mark.parametrize(
    ("sources", "shapes"),
    [
        (LARGE_BESIDE_SMALL, [256, 1024, 256, 512, 256]),  # none of its threads comes later
        (LARGE_BESIDE_SMALL, [1024, 256, 256, 1024, 256]),  # what it would wait for reads it
        (([], [0], [0], [1, 2], [3]), [256, 1024, 256, 256, 1024]),  # needed before
        (([], [0], [0], [2], [1, 2, 3], [0]), [256, 1024, 256, 1024, 256, 1024]),  # not alone at its level
    ],
)
def test_other_calls_do_not_wait(sources, shapes):
    late = calls(*sources, shapes=shapes)
    assert joined_levels(late) == levels(late)


@pytest.mark.parametrize("schedule", Schedule)
def test_no_call_comes_before_its_sources(schedule):
    torch.manual_seed(5)
    for _ in range(50):
        sources = [[j for j in range(i) if torch.rand(()) < 0.3] for i in range(int(torch.randint(1, 12, ())))]
        shapes = [(256, 1024)[int(torch.rand(()) < 0.3)] for _ in sources]
        order = dispatches(calls(*sources, shapes=shapes), schedule)
        place = {call: at for at, group in enumerate(order) for call in group}
        assert sorted(place) == list(range(len(sources)))
        assert all(place[source] < place[call] for call, of in enumerate(sources) for source in of)


def test_fusion_takes_layers_whole():
    layers = [None, 0, 0, 0, 0, 0, 0, 1, 1, None]
    chain = calls([], [0], [1], [1], [2, 3], [4], [1], [5], [7], [8], layers=layers)
    assert fused(chain) == [((0,),), ((1,), (2, 3, 6), (4,), (5,)), ((7,), (8,)), ((9,),)]


def in_one_layer(*sources, early=(), reads_early=(), reduced=(), shapes=None, layers=None, workgroups=1):
    """Calls ``early`` read something before they wait, of calls ``reads_early`` if those are their sources."""
    layers = layers or [3] * len(sources)
    return [
        replace(
            call,
            workgroups=workgroups,
            reads_early=call.sources & {*reads_early} if i in early else None,
            reads_reduced=i in reduced,
        )
        for i, call in enumerate(calls(*sources, shapes=shapes, layers=layers))
    ]


def chained(calls):
    return chained_on(calls, resident=MOST_WAITING * 2)


MOST_WAITING = 50
LARGE = MOST_WAITING + 1


def test_calls_that_start_early_wait_in_one_grid_with_the_level_before():
    calls = [replace(call, workgroups=LARGE) for call in in_one_layer([], [0], [0], [1, 2], [3], early=[1, 2, 4])]
    assert chained(calls) == [((0,), (1, 2)), ((3,), (4,))]


def test_few_workgroups_wait_without_anything_to_load():
    def after(*workgroups):
        calls = in_one_layer([], [0], [0], [1, 2], early=[3])
        return [replace(call, workgroups=count) for call, count in zip(calls, (LARGE, *workgroups, LARGE), strict=True)]

    assert chained(after(MOST_WAITING - 1, 1)) == [((0,), (1, 2), (3,))]
    assert chained(after(MOST_WAITING, 1)) == [((0,),), ((1, 2), (3,))]


def test_few_wait_beside_those_that_load_early():
    def beside(workgroups):
        first, early, late = in_one_layer([], [0], [0], early=[1], workgroups=LARGE)
        return chained([first, early, replace(late, workgroups=workgroups)])

    assert beside(MOST_WAITING) == [((0,), (1, 2))]
    assert beside(LARGE) == [((0,),), ((1, 2),)]


def test_a_chain_has_four_phases_at_most():
    calls = in_one_layer([], [0], [1], [2], [3], early=[1, 2, 3, 4])
    assert chained(calls) == [((0,), (1,), (2,), (3,)), ((4,),)]


@pytest.mark.parametrize(
    "apart",
    [
        {"early": [], "workgroups": LARGE},
        {"early": [1], "reads_early": [0]},
        {"early": [1], "reduced": [1]},
        {"early": [1], "shapes": [256, 64]},
        {"early": [1], "layers": [3, 4]},
        {"early": [1], "layers": [None, None]},
    ],
    ids=["starts late", "reads before it waits", "reads what ranks add up", "other threads", "other layer", "no layer"],
)
def test_what_does_not_wait_in_one_grid(apart):
    assert chained(in_one_layer([], [0], **apart)) == [((0,),), ((1,),)]


def test_clusters_do_not_make_two_rounds_of_a_phase():
    """A phase that fills the device would not fit in clusters; a larger one takes several rounds anyway."""

    def of(workgroups, cluster):
        first, second = in_one_layer([], [0], early=[1])
        return chained([replace(first, workgroups=workgroups), replace(second, workgroups=8, cluster=cluster)])

    assert of(90, 8) == of(100, 1) == of(101, 8) == [((0,), (1,))]
    assert of(91, 8) == of(100, 8) == of(91, 4) == [((0,),), ((1,),)]


def test_pairs_fit_wherever_two_do():
    first, second = in_one_layer([], [0], early=[1])
    assert chained([replace(first, workgroups=100), replace(second, cluster=2)]) == [((0,), (1,))]


def test_what_is_read_early_may_come_from_dispatches_before():
    calls = in_one_layer([], [0], [0, 1], early=[2], reads_early=[0])
    large = [replace(call, workgroups=LARGE) for call in calls]
    assert chained(large) == [((0,),), ((1,), (2,))]


def test_a_chain_ends_where_what_is_read_early_has_been_made():
    """So that who reads it can wait for the level before; not where it could not anyway."""
    calls = in_one_layer([], [0], [0, 1], early=[2], reads_early=[0])
    assert chained(calls) == [((0,),), ((1,), (2,))]
    apart = [*calls[:2], replace(calls[2], reads_reduced=True)]
    assert chained(apart) == [((0,), (1,)), ((2,),)]
    assert chained(in_one_layer([], [0], [1], [0, 2], early=[3], reads_early=[0])) == [((0,), (1,)), ((2,), (3,))]


def test_what_is_read_early_does_not_come_from_the_dispatch():
    first, second, third = in_one_layer([], [0], [0, 1], early=[1, 2])
    assert chained([first, second, third]) == [((0,), (1,), (2,))]
    assert chained([first, second, replace(third, reads_early=frozenset({0}))]) == [((0,),), ((1,), (2,))]
    assert chained([first, second, replace(third, reads_early=frozenset({1}))]) == [((0,), (1,)), ((2,),)]


def test_nothing_waits_beside_another_dispatch_of_its_level():
    beside = in_one_layer([], [0], [0], [1, 2], shapes=[256, 256, 64, 256], early=[1, 3])
    assert chained(beside) == [((0,),), ((1,),), ((2,),), ((3,),)]


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


class FusedLayers(torch.nn.Module):
    """`Projections` twice, as layers whose weights are parameters."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.ParameterDict() for _ in range(2))
        for i, layer in enumerate(self.layers):
            for name, value in (("norm", ONES), ("first", weight(2 * i)), ("second", weight(2 * i + 1))):
                layer[name] = torch.nn.Parameter(value, requires_grad=False)

    def forward(self, x, weight_scales):
        for layer in self.layers:
            values = torch.ops.predecode.rms_norm_group_quant(x, layer["norm"], 1e-6, "e4m3fnuz")
            left = torch.ops.predecode.gemm_fp8_blockscale(*values[:2], layer["first"], weight_scales)
            right = torch.ops.predecode.gemm_fp8_blockscale(*values[:2], layer["second"], weight_scales)
            x = torch.ops.predecode.add_rms_norm_group_quant(left, right, layer["norm"], 1e-6, "e4m3fnuz")[2]
        return x


def fused_module(fusion, layers=FusedLayers):
    model = layers()
    arguments = (activation(1), torch.full((1, 1), 0.5))
    module = trace([Program("main", model, arguments)], GFX942, lambda name: None)
    kernels = inject(module, GFX942, Toolchain(), Schedule.SERIAL, fusion).kernels
    return model, arguments, kernels, compile_module(module, kernels, GFX942, Toolchain())


def run_with_parameters(model, arguments, compiled_module, device, times):
    config = rt.Config(device=device)
    index = rt.ParameterIndex()
    for name, value in model.state_dict().items():
        index.add_buffer(name, np.ascontiguousarray(to_numpy(value)).tobytes())
    instance = config.vm_instance
    parameters = rt.create_io_parameters_module(instance, index.create_provider(scope="model"))
    module = rt.VmModule.copy_buffer(instance, compiled_module.vmfb)
    loaded = rt.load_vm_modules(parameters, module, config=config)[-1]
    buffers = [rt.asdevicearray(device, to_numpy(tensor)) for tensor in arguments]
    return [np.array(loaded.main(*buffers).to_host()).view(np.uint16) for _ in range(times)]


def let_products_read_early(monkeypatch, operand):
    """On a chip whose workgroups start in order, as the emulated ones' do."""
    monkeypatch.setattr(Target, "starts_in_order", True)
    gemm = OPS["gemm_fp8_blockscale"]
    monkeypatch.setitem(
        OPS, gemm.name, replace(gemm, launch=lambda *call: replace(gemm.launch(*call), reads_early=(operand,)))
    )


@pytest.mark.parametrize(("fusion", "phases"), [(Fusion.LAYER, [3]), (Fusion.CHAIN, [1, 2])])
def test_fused_layers_give_the_same_bits_every_time(fusion, phases, monkeypatch):
    let_products_read_early(monkeypatch, "weight")
    model, arguments, kernels, apart = fused_module(Fusion.NONE)
    assert len(kernels) == 3
    _, _, kernels, together = fused_module(fusion)
    assert sorted(len(kernel.composition.phases) for kernel in kernels) == phases
    assert any(kernel.composition.resident for kernel in kernels) == (fusion is Fusion.LAYER)
    device = emulation.open_device("gfx942", strict=True)
    (expected,) = run_with_parameters(model, arguments, apart, device, 1)
    assert expected.any()
    for given in run_with_parameters(model, arguments, together, device, 3):
        np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(("operand", "phases"), [("weight", [1, 2]), ("values", [1, 1, 1])])
def test_what_the_level_before_makes_is_not_read_early(operand, phases, monkeypatch):
    let_products_read_early(monkeypatch, operand)
    _, _, kernels, _ = fused_module(Fusion.CHAIN)
    assert sorted(len(kernel.composition.phases) for kernel in kernels) == phases


def let_kernels_spill(monkeypatch, spills):
    def check(code, composition, target):
        if spills(composition):
            raise RegistersSpilled("too many")
        return check_launch(code, composition, target)

    monkeypatch.setattr("predecode.export.inject.check_launch", check)


def test_a_level_that_makes_registers_spill_stands_alone(monkeypatch):
    let_products_read_early(monkeypatch, "weight")
    let_kernels_spill(monkeypatch, lambda composition: len(composition.phases) > 1)
    model, arguments, kernels, module = fused_module(Fusion.CHAIN)
    assert [len(kernel.composition.phases) for kernel in kernels] == [1, 1, 1]
    device = emulation.open_device("gfx942", strict=True)
    (given,) = run_with_parameters(model, arguments, module, device, 1)
    assert given.any()


def test_calls_side_by_side_that_make_registers_spill_stand_alone(monkeypatch):
    let_products_read_early(monkeypatch, "weight")
    model, arguments, _, apart = fused_module(Fusion.NONE, Aside)
    let_kernels_spill(monkeypatch, lambda composition: len(composition.parts) > 1)
    _, _, kernels, alone = fused_module(Fusion.CHAIN, Aside)
    assert {len(kernel.composition.parts) for kernel in kernels} == {1}
    device = emulation.open_device("gfx942", strict=True)
    (expected,) = run_with_parameters(model, arguments, apart, device, 1)
    (given,) = run_with_parameters(model, arguments, alone, device, 1)
    np.testing.assert_array_equal(given, expected)


def test_what_spills_alone_is_refused(monkeypatch):
    let_kernels_spill(monkeypatch, lambda composition: True)
    with pytest.raises(RegistersSpilled):
        fused_module(Fusion.NONE, Aside)


class Aside(torch.nn.Module):
    """A product that nothing in its dispatch reads, beside one that a norm does."""

    def __init__(self):
        super().__init__()
        values = (("norm", ONES), ("first", weight(0)), ("second", weight(1)))
        parameters = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in values}
        self.layers = torch.nn.ModuleList([torch.nn.ParameterDict(parameters)])

    def forward(self, x, weight_scales):
        (layer,) = self.layers
        values = torch.ops.predecode.rms_norm_group_quant(x, layer["norm"], 1e-6, "e4m3fnuz")
        read = torch.ops.predecode.gemm_fp8_blockscale(*values[:2], layer["first"], weight_scales)
        aside = torch.ops.predecode.gemm_fp8_blockscale(*values[:2], layer["second"], weight_scales)
        return torch.ops.predecode.rms_norm_group_quant(read, layer["norm"], 1e-6, "e4m3fnuz")[2] + aside


def test_a_phase_waits_for_what_later_ones_read(monkeypatch):
    let_products_read_early(monkeypatch, "weight")
    model, arguments, _, apart = fused_module(Fusion.NONE, Aside)
    _, _, (kernel,), together = fused_module(Fusion.CHAIN, Aside)
    awaited = [[part.awaited for part in phase] for phase in kernel.composition.phases]
    (norm,), (product, _), _ = kernel.composition.phases
    assert awaited == [[norm.workgroups], [product.workgroups, 0], [0]]
    source = entry_source(kernel.composition)
    counts = [sum(part.awaited_workgroups for part in phase) for phase in kernel.composition.phases]
    assert [int(count) for count in re.findall(r"EarlierPhase\{[^,]+, (\d+),", source)] == [
        counts[0],
        counts[0],
        counts[1],
    ]
    assert source.count("arrive(") == 2
    device = emulation.open_device("gfx942", strict=True)
    (expected,) = run_with_parameters(model, arguments, apart, device, 1)
    assert expected.any()
    for given in run_with_parameters(model, arguments, together, device, 3):
        np.testing.assert_array_equal(given, expected)


def test_nothing_waits_on_a_chip_whose_workgroups_start_in_any_order():
    _, _, kernels, _ = fused_module(Fusion.CHAIN)
    assert [len(kernel.composition.phases) for kernel in kernels] == [1, 1, 1]


def test_what_stands_between_two_calls_is_named():
    class Between(FusedLayers):
        def forward(self, x, weight_scales):
            layer = self.layers[0]
            x = torch.ops.predecode.rms_norm_group_quant(x, layer["norm"], 1e-6, "e4m3fnuz")[2]
            return torch.ops.predecode.rms_norm_group_quant(x * 2, layer["norm"], 1e-6, "e4m3fnuz")[2]

    arguments = (activation(1), torch.full((1, 1), 0.5))
    module = trace([Program("main", Between(), arguments)], GFX942, lambda name: None)
    with pytest.raises(PredecodeError, match=r"rms_norm_group_quant cannot be fused .* torch.aten.mul.Scalar"):
        inject(module, GFX942, Toolchain(), Schedule.SERIAL, Fusion.LAYER)
