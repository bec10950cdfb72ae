"""`indexer_q_prepare_and_logits` against the two ops that it stands for."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.indexer_q_prepare_and_logits import MOST_ROWS, OP
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.occupancy import occupancy
from predecode.custom_kernels.op import OPS, Call
from predecode.custom_kernels.paged_mqa_logits import THREADS, WORKGROUPS_PER_UNIT
from predecode.custom_kernels.prologue import PROLOGUES
from predecode.custom_kernels.targets import CPU, GFX942, GFX950, SM_90, Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.pipelines import emulation
from tests.custom_kernels.cases.case import Case, mismatch
from tests.custom_kernels.cases.indexer_q_prepare_and_logits import cases
from tests.custom_kernels.compiled_cases import LoadedCases, as_tensor, compile_cases

NAMES = tuple(argument.name for argument in OP.overload._schema.arguments)
(PROLOGUE,) = (prologue for prologue in PROLOGUES if prologue.fused is OP)
PRODUCER, CONSUMER = OPS[PROLOGUE.producer], OPS[PROLOGUE.consumer]
ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)[:14]]


def names_of(op) -> list[str]:
    return [argument.name for argument in op.overload._schema.arguments]


def produced_by(arguments: tuple) -> tuple:
    """Arguments of the producer, as the prologue tells them from those of the fused op."""
    given = dict(zip(NAMES, arguments, strict=True))
    fused_name = {of_producer: name for name, of_producer in PROLOGUE.producer_names.items()}
    return tuple(given[fused_name[name]] for name in names_of(PRODUCER))


def consumed_by(arguments: tuple, produced) -> tuple:
    """Arguments of the consumer, of which the producer has made some."""
    given = dict(zip(NAMES, arguments, strict=True))
    through = {name: produced[index] for name, index in PROLOGUE.through.items()}
    return tuple(through[name] if name in through else given[name] for name in names_of(CONSUMER))


@pytest.mark.parametrize("case", ALL)
def test_is_what_the_two_ops_give(case):
    expected = CONSUMER.overload(*consumed_by(case.arguments, PRODUCER.overload(*produced_by(case.arguments))))
    assert torch.equal(OP.overload(*case.arguments), expected)


def test_every_argument_is_one_of_the_two_ops():
    of_consumer = set(names_of(CONSUMER)) - set(PROLOGUE.through)
    assert set(NAMES) == set(PROLOGUE.producer_names) | of_consumer
    assert set(PROLOGUE.producer_names.values()) == set(names_of(PRODUCER))


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "GLM-5.1, 4 rows")
    right = dict(zip(NAMES, case.arguments, strict=True))
    q, gates, positions = right["q"], right["gates"], right["positions"]
    wrong = {
        "positions of other rows": {"positions": positions.roll(1)},
        "the other pairing": {"rope_layout": "halves"},
        "gates of other heads": {"gates": gates.roll(1, 1)},
        "heads of other rows": {"q": q.roll(1, 0)},
        "cosines for sines": {"rope_table": right["rope_table"].roll(32, 1)},
        "a smaller scale": {"gates": gates / 2},
        "a token too few": {"lengths": right["lengths"] - 1},
    }
    expected = OP.overload(*case.arguments)
    for label, changed in wrong.items():
        assert mismatch(OP.overload(*(right | changed).values()), expected, case.compare[0]), label


@pytest.mark.parametrize(("target", "chosen"), [(GFX942, slice(1, None, 4)), (GFX950, slice(0, None, 8))])
def test_kernel_gives_the_bits_of_the_two_kernels(target, chosen):
    chosen = cases(target.element_format)[chosen]
    device = emulation.open_device(target.arch, strict=True)

    def run(op, arguments_of):
        compiled = LoadedCases(compile_cases(op, [Case("", given, ()) for given in arguments_of], target), device)
        return [compiled.run(i, given) for i, given in enumerate(arguments_of)]

    given = [case.arguments for case in chosen]
    fused = run(OP, given)
    produced = []
    for arguments, results in zip(given, run(PRODUCER, [produced_by(g) for g in given]), strict=True):
        like = PRODUCER.reference(*produced_by(arguments))
        produced.append([as_tensor(result, wanted) for result, wanted in zip(results, like, strict=True)])
    two = run(CONSUMER, [consumed_by(*pair) for pair in zip(given, produced, strict=True)])
    for case, (one,), (other,) in zip(chosen, fused, two, strict=True):
        region = case.compare[0].region.numpy()
        assert np.array_equal(one.view(np.uint32)[region], other.view(np.uint32)[region]), case.label


def call_of(rows: int, heads: int, target: Target, layout: str = "interleaved") -> Call:
    def empty(*shape, dtype=torch.float32):
        return torch.empty(shape, dtype=dtype, device="meta")

    arguments = {
        "q": empty(rows, heads * 128, dtype=torch.bfloat16),
        "gates": empty(rows, heads),
        "rope_table": empty(4096, 64),
        "positions": empty(rows, dtype=torch.int64),
        "rope_layout": layout,
        "element_format": target.element_format.name,
        "cache": empty(9, 132 * PAGE_TOKENS, dtype=torch.int8),
        "block_table": empty(rows, 128, dtype=torch.int32),
        "lengths": empty(rows, dtype=torch.int32),
        "topk": 2048,
    }
    return Call(arguments, ())


@pytest.mark.parametrize("target", [GFX942, GFX950, SM_90], ids=lambda target: target.name)
@pytest.mark.parametrize("layout", ["interleaved", "halves"])
@pytest.mark.parametrize("heads", [16, 32, 48, 64])
@pytest.mark.parametrize("rows", [1, MOST_ROWS])
def test_launch_fits_as_often_as_it_counts_on(rows, heads, layout, target):
    launch = OP.launch_on(target, call_of(rows, heads, target, layout))
    composition = Composition.of(launch, pointers=8)
    kernel = check_launch(Toolchain().build(composition, target), composition, target)
    at_once = occupancy(kernel, THREADS // target.wave_size, target).workgroups_per_compute_unit
    assert at_once >= WORKGROUPS_PER_UNIT


def test_pays_for_few_rows_where_ops_wait_for_each_other():
    assert PROLOGUE.pays(SM_90, call_of(1, 32, SM_90)) and PROLOGUE.pays(SM_90, call_of(MOST_ROWS, 32, SM_90))
    assert not PROLOGUE.pays(SM_90, call_of(MOST_ROWS + 1, 32, SM_90))
    assert not any(PROLOGUE.pays(target, call_of(1, 32, target)) for target in (CPU, GFX942, GFX950))


def test_launch_is_refused_where_there_is_no_kernel():
    assert OP.launch_on(GFX950, call_of(1, 32, GFX942)) is None, "the other format"
    assert OP.launch_on(SM_90, call_of(1, 80, SM_90)) is None


def test_touched_is_what_both_ops_touch():
    call = call_of(4, 32, SM_90)
    both = {name: rule.touched(call)[name] for rule, name in ((PRODUCER, "rope_table"), (CONSUMER, "cache"))}
    assert OP.touched(call) == both


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)
