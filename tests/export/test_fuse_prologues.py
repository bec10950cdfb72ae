"""Which calls become one that makes its own rows, and what they are called with."""

import pytest
import torch

from predecode.custom_kernels.targets import GFX942, SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.inject import inject
from predecode.export.schedule import Fusion, Schedule
from predecode.export.trace import Program, trace

OPS = torch.ops.predecode
FP8 = torch.float8_e4m3fn


class Layer(torch.nn.Module):
    """``body`` of a layer with norms of 1024 columns and two products of the normed rows."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        weight = torch.zeros(16, 64, 16, 16, dtype=FP8)
        values = {"norm": torch.ones(1024).bfloat16(), "gate": torch.zeros(8, 1024).bfloat16(), "weight": weight}
        values |= {"scales": torch.ones(2, 8), "router": torch.zeros(64, 1024).bfloat16(), "bias": torch.zeros(64)}
        parameters = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in values.items()}
        self.layers = torch.nn.ModuleList([torch.nn.ParameterDict(parameters)])

    def forward(self, x, residual):
        return self.body(self.layers[0], x, residual)


def ops_of(body, rows=4, fusion=Fusion.CHAIN, target=SM_90) -> list[str]:
    """The ops that are dispatched."""
    arguments = torch.zeros(rows, 1024).bfloat16(), torch.zeros(rows, 1024).bfloat16()
    module = trace([Program("main", Layer(body), arguments)], target, lambda name: None)
    kernels = inject(module, target, Toolchain(), Schedule.OVERLAP, fusion).kernels
    return sorted(launch.symbol for kernel in kernels for launch in kernel.composition.launches)


def added(p, x, residual, norm="norm"):
    return OPS.add_rms_norm_group_quant(x, residual, p[norm], 1e-6, "e4m3fn")


def product(p, values, scales):
    return OPS.gemm_fp8_blockscale(values, scales, p["weight"], p["scales"])


def everything(p, x, residual):
    values, scales, normed, total = added(p, x, residual)
    return product(p, values, scales), OPS.linear_bf16(normed, p["gate"]), total


def products_alone(p, x, residual):
    values, scales, normed, _ = added(p, x, residual)
    return product(p, values, scales), OPS.linear_bf16(normed, p["gate"])


def without_residual(p, x, residual):
    values, scales, normed = OPS.rms_norm_group_quant(x, p["norm"], 1e-6, "e4m3fn")
    return product(p, values, scales), OPS.linear_bf16(normed, p["gate"])


APART = ["add_rms_norm_group_quant", "gemm_fp8_blockscale", "linear_bf16"]
FUSED = ["add_normed_gemm_fp8_blockscale", "add_normed_linear_bf16"]


def test_products_of_few_rows_norm_them():
    assert ops_of(everything, rows=8) == [*FUSED, "add_rms_norm_group_quant"]


def test_a_norm_that_nothing_reads_is_dropped():
    assert ops_of(products_alone) == FUSED
    assert ops_of(without_residual) == ["normed_gemm_fp8_blockscale", "normed_linear_bf16"]


def test_unquantised_products_norm_more():
    assert ops_of(everything, rows=9) == [FUSED[1], *APART[:2]]


@pytest.mark.parametrize("choice", [{"rows": 17}, {"fusion": Fusion.NONE}, {"fusion": Fusion.LAYER}])
def test_others_wait_for_it(choice):
    assert ops_of(everything, **choice) == APART


def test_amd_has_no_such_kernels():
    def layer(p, x, residual):
        values, scales, normed, total = OPS.add_rms_norm_group_quant(x, residual, p["norm"], 1e-6, "e4m3fnuz")
        weight = p["weight"].view(torch.float8_e4m3fnuz)
        return OPS.gemm_fp8_blockscale(values, scales, weight, p["scales"]), normed, total

    assert ops_of(layer, target=GFX942) == APART[:2]


def scales_of_another(p, x, residual):
    values, _, _, total = added(p, x, residual)
    _, scales, _, _ = added(p, total, residual)
    return product(p, values, scales)


def another_result(p, x, residual):
    return OPS.linear_bf16(added(p, x, residual)[3], p["gate"])


def quantized_apart(p, x, residual):
    return product(p, *OPS.group_quant(added(p, x, residual)[2], "e4m3fn"))


@pytest.mark.parametrize("body", [scales_of_another, another_result, quantized_apart])
def test_only_what_the_norm_makes_for_the_product(body):
    assert not [name for name in ops_of(body) if "normed" in name]


def choose(p, logits):
    return OPS.router_topk(logits, p["bias"], 2, 1, 1, True, 1.0, 1)


def routed(p, x, residual):
    _, _, normed, total = added(p, x, residual)
    return *choose(p, OPS.linear_bf16(normed, p["router"])), total


def routed_and_kept(p, x, residual):
    logits = OPS.linear_bf16(added(p, x, residual)[2], p["router"])
    return *choose(p, logits), logits


def routed_without_residual(p, x, residual):
    return choose(p, OPS.linear_bf16(OPS.rms_norm_group_quant(x, p["norm"], 1e-6, "e4m3fn")[2], p["router"]))


def routed_from_elsewhere(p, x, residual):
    return choose(p, OPS.linear_bf16(added(p, x, residual)[3], p["router"]))


SPLIT = ["add_normed_linear_split_k", "router_topk_split_k"]


def test_routing_of_many_rows_adds_up_its_scores():
    for rows in (17, 64):
        assert ops_of(routed, rows=rows) == [SPLIT[0], "add_rms_norm_group_quant", SPLIT[1]]
    assert ops_of(routed, rows=16) == ["add_normed_linear_bf16", "add_rms_norm_group_quant", "router_topk"]
    assert not {*SPLIT} & {*ops_of(routed, rows=65)}


@pytest.mark.parametrize("body", [routed_and_kept, routed_without_residual, routed_from_elsewhere])
def test_others_read_scores_that_are_added_up(body):
    assert not {*SPLIT} & {*ops_of(body, rows=64)}


@pytest.mark.parametrize("choice", [{"fusion": Fusion.NONE}, {"fusion": Fusion.LAYER}])
def test_scores_are_split_in_chains_alone(choice):
    assert not {*SPLIT} & {*ops_of(routed, rows=64, **choice)}


class Indexer(torch.nn.Module):
    """The indexer's query and its scores."""

    def forward(self, q, gates, rope_table, positions, cache, block_table, lengths):
        query, weights = OPS.indexer_q_prepare(q, gates, rope_table, positions, "interleaved", "e4m3fn")
        return OPS.paged_mqa_logits(query, weights, cache, block_table, lengths, 2048)


@pytest.mark.parametrize(
    ("rows", "ops"), [(64, {"indexer_q_prepare_and_logits"}), (65, {"indexer_q_prepare", "paged_mqa_logits"})]
)
def test_scores_make_their_query(rows, ops):
    integers = (torch.zeros(rows, dtype=torch.int64), torch.zeros(4, 8448, dtype=torch.int8))
    pages = (torch.zeros(rows, 64, dtype=torch.int32), torch.ones(rows, dtype=torch.int32))
    arguments = (torch.zeros(rows, 4096).bfloat16(), torch.zeros(rows, 32), torch.zeros(64, 64), *integers, *pages)
    module = trace([Program("main", Indexer(), arguments)], SM_90, lambda name: None)
    kernels = inject(module, SM_90, Toolchain(), Schedule.OVERLAP, Fusion.CHAIN).kernels
    assert {launch.symbol for kernel in kernels for launch in kernel.composition.launches} == ops
