"""Products whose reader adds up their slices: what the two ops stand for, where they pay, and that kernels fit."""

from collections.abc import Iterator

import pytest
import torch

from predecode.custom_kernels import add_normed_linear_bf16, add_normed_linear_split_k, router_topk, router_topk_split_k
from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import Op
from predecode.custom_kernels.prologues import SPLIT_PRODUCTS, consumer_of
from predecode.custom_kernels.split_k import SLICES, join_partials, split_partials
from predecode.custom_kernels.targets import CPU, GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.compiled_cases import LoadedCases, compile_cases, device_of, load
from tests.custom_kernels.device_check import described

(SPLIT,) = SPLIT_PRODUCTS
NAMES = ("add_normed_linear_split_k", "router_topk_split_k")
EPSILON, SETTINGS = 1e-2, (4, 2, 1, True, 2.5, 1)


def calls_of(name: str) -> list:
    op, cases = load(name, SM_90.element_format)
    return [(case.label, described(op, case)) for case in cases]


def inputs(rows: int = 5, columns: int = 512, experts: int = 64) -> dict[str, torch.Tensor]:
    """Of float32, which is not rounded on the way, rows of very different sizes."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "x": (rows, columns),
        "residual": (rows, columns),
        "norm_weight": (columns,),
        "weight": (experts, columns),
    }
    given = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    given["x"] *= 10.0 ** torch.arange(-2, rows - 2)[:, None]
    return given


def routed(partials: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return router_topk_split_k.reference(partials, bias, EPSILON, *SETTINGS)


def agree(given, expected) -> bool:
    (ids, weights), (expected_ids, expected_weights) = given, expected
    return torch.equal(ids, expected_ids) and torch.allclose(weights, expected_weights, rtol=1e-5)


def test_together_they_are_the_norm_the_product_and_the_routing():
    given, bias = inputs(), torch.linspace(-0.1, 0.1, 64)
    logits = add_normed_linear_bf16.reference(**given, epsilon=EPSILON)
    expected = router_topk.reference(logits, bias, *SETTINGS)
    partials = add_normed_linear_split_k.reference(**given)
    assert agree(routed(partials, bias), expected)
    terms, mean_squares = split_partials(partials, 64)
    assert not agree(routed(join_partials(terms, mean_squares.roll(1, 1)), bias), expected)
    assert not agree(routed(join_partials(terms.roll(1, 1), mean_squares), bias), expected)
    for slice_ in (0, SLICES - 1):
        without = terms.clone()
        without[slice_] = 0
        assert not agree(routed(join_partials(without, mean_squares), bias), expected)


def test_rows_do_not_see_each_other():
    """The same bits for a row whatever the others are and however many: gfx942 machine code on the emulated device."""
    given = {name: value.bfloat16() for name, value in inputs(rows=20).items()}
    bias = torch.linspace(-0.1, 0.1, 64)
    selections = [[*range(20)], [*reversed(range(20))], [7], [3, 19, 3] * 17, [*range(20)]]
    products = [
        (given["x"][rows], given["residual"][rows], given["norm_weight"], given["weight"]) for rows in selections
    ]
    device = device_of(GFX942)
    of_rows = [split_partials(torch.from_numpy(made), 64) for (made,) in _run(SPLIT.partial, products, device)]
    routings = [(join_partials(*parts), bias, EPSILON, *SETTINGS) for parts in of_rows]
    chosen = list(_run(SPLIT.reader, routings, device))
    terms, mean_squares = of_rows[0]
    ids, weights = chosen[0]
    assert len({row.tobytes() for row in weights}) == 20
    for rows, (own_terms, own_squares), (own_ids, own_weights) in zip(selections, of_rows, chosen, strict=True):
        assert torch.equal(own_terms, terms[:, rows]) and torch.equal(own_squares, mean_squares[:, rows])
        assert (own_ids == ids[rows]).all() and (own_weights == weights[rows]).all()


def _run(op: Op, calls: list[tuple], device) -> Iterator:
    loaded = LoadedCases(compile_cases(op, [Case("", arguments, ()) for arguments in calls], GFX942), device)
    return (loaded.run(i, arguments) for i, arguments in enumerate(calls))


def test_parts_come_apart_as_they_were_joined():
    terms, mean_squares = torch.randn(SLICES, 3, 7), torch.randn(SLICES, 3)
    joined = join_partials(terms, mean_squares)
    assert joined.shape == (SLICES, 3 * 8)
    for given, expected in zip(split_partials(joined, 7), (terms, mean_squares), strict=True):
        assert torch.equal(given, expected)


def test_pays_for_many_rows_where_workgroups_start_in_order():
    rows = {}
    for label, call in calls_of(NAMES[0]):
        rows[label] = count = call["x"].shape[0]
        assert SPLIT.pays(SM_90, call) == (17 <= count <= 64)
        assert not any(SPLIT.pays(target, call) for target in (CPU, GFX942, GFX950))
    assert {1, 8, 17, 64} <= {*rows.values()}


@pytest.mark.parametrize("name", NAMES)
def test_every_kernel_fits(name):
    """Registers, workgroup memory and arguments, as `check_launch` reads them from the assembler."""
    op = load(name, SM_90.element_format)[0]
    large = [call for label, call in calls_of(name) if "GLM" in label or "DeepSeek" in label or "384" in label]
    assert len(large) >= 4
    for call in large:
        launch = op.launch_on(SM_90, call)
        assert not {"x", "residual", "partials"} & {*launch.reads_early}
        composition = Composition.of(launch, len(launch.operands) + len(call.results))
        check_launch(Toolchain().build(composition, SM_90), composition, SM_90)


@pytest.mark.parametrize(("columns", "outputs", "rows"), [(512, 65, 4), (520, 64, 4), (512, 64, 65)])
def test_what_does_not_divide_has_no_kernel(columns, outputs, rows):
    x, weight = (torch.empty(n, columns, dtype=torch.bfloat16, device="meta") for n in (rows, outputs))
    given = {"x": x, "residual": x, "norm_weight": x[0], "weight": weight}
    for target in (SM_90, GFX942):
        assert not SPLIT.partial.launch_on(target, given)


def test_each_is_found_by_what_it_stands_for():
    assert [consumer_of(name) for name in NAMES] == ["linear_bf16", "router_topk"]
