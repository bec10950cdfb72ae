"""Ops that make again what another op makes for them: what they stand for, where they pay, and that kernels fit."""

import pytest
import torch

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import OPS, Op
from predecode.custom_kernels.prologues import PROLOGUES, consumer_of
from predecode.custom_kernels.targets import CPU, GFX942, GFX950, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from tests.custom_kernels.compiled_cases import load, tensors_of
from tests.custom_kernels.device_check import described

SMALL = 2**21
# The query's latent is a part of what its producer reads: that prologue has a test of its own.
OF_WHOLE_ROWS = [prologue for prologue in PROLOGUES if prologue.producer != "latent_norms_and_cache"]
each = pytest.mark.parametrize("prologue", OF_WHOLE_ROWS, ids=lambda p: p.fused.name)


def names_of(op: Op) -> list[str]:
    return [argument.name for argument in op.overload._schema.arguments]


def cases_of(op: Op) -> list:
    _, cases = load(op.name, SM_90.element_format)
    return [case for case in cases if sum(tensor.nbytes for tensor in tensors_of(case)) <= SMALL]


@each
def test_reference_is_that_of_the_two_ops(prologue):
    producer, consumer = OPS[prologue.producer], OPS[prologue.consumer]
    cases = cases_of(prologue.fused)
    assert len(cases) > 8
    for case in cases:
        given = dict(zip(names_of(prologue.fused), case.arguments, strict=True))
        theirs = {"element_format": "e4m3fn"}
        theirs |= {name: given[own] for own, name in prologue.producer_names.items()}
        if "x" in theirs and "norm_weight" in given:
            theirs["x"] = theirs["x"][:, : len(given["norm_weight"])]
        made = producer.reference(*(theirs[name] for name in names_of(producer)))
        through = {name: made[index] for name, index in prologue.through.items()}
        expected = consumer.reference(*(through[n] if n in through else given[n] for n in names_of(consumer)))
        assert torch.equal(prologue.fused.reference(*case.arguments).nan_to_num(), expected.nan_to_num()), case.label


def test_the_querys_latent_is_normed_as_beside_the_keys():
    case = next(case for case in load("latent_norms_and_cache", SM_90.element_format)[1] if case.label == "halves")
    qkv_a, query_norm, *_, epsilon, _, _, _ = case.arguments
    values, scales, _ = OPS["latent_norms_and_cache"].reference(*case.arguments)
    weight = load("gemm_fp8_blockscale", SM_90.element_format)[1][0].arguments[2:]
    expected = OPS["gemm_fp8_blockscale"].reference(values, scales, *weight)
    assert torch.equal(OPS["normed_gemm_fp8_blockscale"].reference(qkv_a, query_norm, epsilon, *weight), expected)


@each
def test_pays_for_few_rows_where_workgroups_start_in_order(prologue):
    calls = [described(prologue.fused, case) for case in load(prologue.fused.name, SM_90.element_format)[1]]
    rows = [call.results[0].shape[0] for call in calls]
    assert min(rows) == 1 and max(rows) > 8
    for call, count in zip(calls, rows, strict=True):
        assert prologue.pays(SM_90, call) == (count <= (16 if prologue.consumer == "linear_bf16" else 8))
        assert not any(prologue.pays(target, call) for target in (CPU, GFX942, GFX950))


@pytest.mark.parametrize("name", sorted({p.fused.name for p in PROLOGUES if "normed" in p.fused.name}))
def test_every_kernel_fits(name):
    """Registers, workgroup memory and arguments, as `check_launch` reads them from the assembler."""
    op, cases = load(name, SM_90.element_format)
    large = [case for case in cases if "GLM" in case.label or "DeepSeek" in case.label]
    launches = [launch for case in large if (launch := op.launch_on(SM_90, described(op, case)))]
    assert len(launches) >= 4
    for launch in launches:
        assert launch.cluster > 1 and not {"x", "residual"} & {*launch.reads_early}
        composition = Composition.of(launch, len(launch.operands) + 1)
        check_launch(Toolchain().build(composition, SM_90), composition, SM_90)


def test_each_prologue_is_found_by_what_it_does():
    assert consumer_of("add_normed_gemm_fp8_blockscale") == "gemm_fp8_blockscale"
    assert consumer_of("indexer_q_prepare_and_logits") == "paged_mqa_logits"
    assert consumer_of("topk_slots") == "topk_slots"
