"""Which results of a chain are posted to the one call that reads them, and who waits then."""

import re
from dataclasses import replace

import pytest
import torch

from predecode.custom_kernels import all_reduce
from predecode.custom_kernels.entry_source import entry_source
from predecode.custom_kernels.op import OPS as OPS_BY_NAME
from predecode.custom_kernels.targets import SM_90
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.inject import inject
from predecode.export.schedule import Fusion, Schedule
from predecode.export.trace import Program, trace
from predecode.pipelines.mailbox_table import table_shape

OPS = torch.ops.predecode
COLUMNS, EXPERTS = 1024, 8
QUERY, LATENT, ROPE = 256, 112, 16
PRODUCT = QUERY + LATENT + ROPE
FP8 = torch.float8_e4m3fn
ATTENDING_ROWS = 16


class Layer(torch.nn.Module):
    """``body`` of a layer with a norm, a router, and a product."""

    def __init__(self, body):
        super().__init__()
        self.body = body
        values = {
            "norm": torch.ones(COLUMNS).bfloat16(),
            "gate": torch.zeros(EXPERTS, COLUMNS).bfloat16(),
            "bias": torch.zeros(EXPERTS),
            "weight": torch.zeros(PRODUCT // 16, COLUMNS // 16, 16, 16, dtype=FP8),
            "scales": torch.ones(PRODUCT // 128, COLUMNS // 128),
            "query": torch.ones(QUERY).bfloat16(),
            "latent": torch.ones(LATENT).bfloat16(),
            "experts": torch.zeros(EXPERTS + 1, 2, COLUMNS // 16, 16, 16, dtype=FP8),
            "expert_scales": torch.ones(EXPERTS + 1, 1, COLUMNS // 128),
            "next": torch.zeros(8, QUERY // 16, 16, 16, dtype=FP8),
            "next_scales": torch.ones(1, QUERY // 128),
            "attending": torch.zeros(ATTENDING_ROWS, 8, LATENT + ROPE, dtype=FP8),
            "slots": torch.zeros(ATTENDING_ROWS, 64, dtype=torch.int32),
        }
        parameters = {name: torch.nn.Parameter(value, requires_grad=False) for name, value in values.items()}
        self.layers = torch.nn.ModuleList([torch.nn.ParameterDict(parameters)])

    def forward(self, x, rope_table, positions, cache, slots):
        return self.body(self.layers[0], x, (rope_table, positions, cache, slots))


def normed(p, x):
    return OPS.rms_norm_group_quant(x, p["norm"], 1e-6, "e4m3fn")


def choose(p, logits):
    return OPS.router_topk(logits, p["bias"], 2, 1, 1, True, 1.0, 1)


def routed(p, x, _):
    return choose(p, OPS.linear_bf16(normed(p, x)[2], p["gate"]))


def routed_and_kept(p, x, _):
    logits = OPS.linear_bf16(normed(p, x)[2], p["gate"])
    return *choose(p, logits), logits


def routed_twice(p, x, _):
    logits = OPS.linear_bf16(normed(p, x)[2], p["gate"])
    return *choose(p, logits), *choose(p, logits)


def multiplied(p, x, _):
    values, scales, _ = normed(p, x)
    return OPS.gemm_fp8_blockscale(values, scales, p["weight"], p["scales"])


def latents_of(p, x, keys):
    return OPS.latent_norms_and_cache(
        multiplied(p, x, keys), p["query"], p["latent"], *keys, 1e-6, 1e-6, "halves", "e4m3fn"
    )


def latents(p, x, keys):
    """A product, what is made of its rows, and a product of that."""
    query, query_scales, cache = latents_of(p, x, keys)
    return OPS.gemm_fp8_blockscale(query, query_scales, p["next"], p["next_scales"]), cache


def attended(p, x, keys):
    """A product, what is made of its rows, and what reads the keys of that."""
    *_, cache = latents_of(p, x, keys)
    return OPS.sparse_mla(p["attending"], cache, p["slots"], 64, 1.0, 1)


def routed_experts(p, x, _):
    """Experts, which read what was made before their routing."""
    values, scales, x = normed(p, x)
    ids, weights = choose(p, OPS.linear_bf16(x, p["gate"]))
    return OPS.moe_gate_up(values, scales, ids, p["experts"], p["expert_scales"], 1), weights


def summed(p, x, keys):
    """A product whose results ranks add up; the addresses of their mailboxes are any."""
    return OPS.all_reduce(multiplied(p, x, keys), keys[1][:8].reshape(table_shape(2)), 0, 0)


def compositions_of(body, rows, fusion=Fusion.CHAIN):
    arguments = (
        torch.zeros(rows, COLUMNS).bfloat16(),
        torch.zeros(rows, ROPE),
        torch.zeros(rows, dtype=torch.int64),
        torch.zeros(2, 64 * (LATENT + ROPE), dtype=torch.int8),
        torch.zeros(rows, dtype=torch.int64),
    )
    module = trace([Program("main", Layer(body), arguments)], SM_90, lambda name: None)
    injected = inject(module, SM_90, Toolchain(), Schedule.OVERLAP, fusion)
    return [kernel.composition for kernel in injected.kernels], str(module)


def posting(compositions) -> list[str]:
    """The ops that post, then those that take."""
    parts = [part for composition in compositions for part in composition.parts]
    return [part.launch.symbol for part in parts if part.posts] + [p.launch.symbol for p in parts if p.takes]


def waits_of(chain) -> list[tuple[int, int]]:
    """How many workgroups each waiting part waits for, and how many wait."""
    waits = re.findall(r"EarlierPhase\{\(Arrivals \*\)p\d+ \+ \d+, (\d+), (\d+)\}", entry_source(chain))
    return [(int(awaited), int(waiting)) for awaited, waiting in waits]


@pytest.mark.parametrize(
    ("rows", "product"), [(4, "normed_linear_bf16"), (16, "normed_linear_bf16"), (64, "linear_bf16")]
)
def test_scores_are_posted_to_the_routing(rows, product):
    compositions, module = compositions_of(routed, rows)
    assert posting(compositions) == [product, "router_topk"]
    (chain,) = (composition for composition in compositions if len(composition.phases) > 1)
    source = entry_source(chain)
    assert source.count("true)") == source.count("EarlierPhase{.posts = true}") == 1
    # The scores lie behind the words that workgroups wait by.
    (offset,) = {part.offsets[0] for part in chain.parts if part.takes}
    assert re.search(rf"grid_state\.main\.\d+ = dense<0> : tensor<{offset // 4 + rows * EXPERTS}xi32>", module)


@pytest.mark.parametrize("body", [routed_and_kept, routed_twice])
def test_what_others_read_too_is_waited_for(body):
    compositions, _ = compositions_of(body, 4)
    assert any(len(composition.phases) > 1 for composition in compositions)
    assert posting(compositions) == []


@pytest.mark.parametrize("fusion", [Fusion.NONE, Fusion.LAYER])
def test_only_chains_post(fusion):
    assert posting(compositions_of(routed, 4, fusion)[0]) == []


def test_a_product_is_posted_to_the_norms_of_its_rows():
    compositions, _ = compositions_of(latents, 16)
    assert posting(compositions) == ["gemm_fp8_blockscale", "latent_norms_and_cache"]
    (chain,) = (composition for composition in compositions if posting([composition]))
    # Nobody waits for the product; the next one does for what the norms made.
    *_, (norms,), (product,) = chain.phases
    assert waits_of(chain)[-1] == (norms.awaited, product.workgroups)


def test_a_product_is_posted_to_the_ranks_sum():
    compositions, _ = compositions_of(summed, 16)
    assert posting(compositions) == ["gemm_fp8_blockscale", "all_reduce"]


def test_what_is_sent_in_slices_is_waited_for(monkeypatch):
    monkeypatch.setattr(all_reduce, "_MOST_ONE_SHOT_BYTES", -1)
    compositions, _ = compositions_of(summed, 16)
    assert [len(composition.phases) for composition in compositions] == [3]
    assert posting(compositions) == []


@pytest.mark.parametrize(("body", "share"), [(latents, 2), (attended, 1)])
def test_only_workgroups_that_make_what_is_read_are_waited_for(body, share):
    compositions, _ = compositions_of(body, ATTENDING_ROWS)
    (chain,) = (composition for composition in compositions if "latent_norms_and_cache" in composition.symbol)
    (norms,), following = chain.phases[-2:]
    assert norms.launch.symbol == "latent_norms_and_cache"
    assert norms.awaited == norms.workgroups // share
    assert waits_of(chain)[-1] == (norms.awaited, sum(part.workgroups for part in following))


def test_many_rows_are_waited_for():
    """So many words are read faster when all are there."""
    assert posting(compositions_of(latents, 32)[0]) != []
    assert posting(compositions_of(latents, 33)[0]) == []


def test_what_a_later_phase_needs_of_the_first_is_waited_for():
    compositions, _ = compositions_of(routed_experts, 16)
    together = [{launch.symbol for launch in composition.launches} for composition in compositions]
    assert any({"rms_norm_group_quant", "router_topk", "moe_gate_up"} <= symbols for symbols in together)
    assert posting(compositions) == []


def test_who_needs_something_else_too_waits(monkeypatch):
    for name, change in (("rms_norm_group_quant", {"posts": True}), ("gemm_fp8_blockscale", {"takes": "values"})):
        op = OPS_BY_NAME[name]
        changed = replace(op, launch=lambda *call, op=op, change=change: replace(op.launch(*call), **change))
        monkeypatch.setitem(OPS_BY_NAME, name, changed)
    compositions, _ = compositions_of(multiplied, 16)
    assert [len(composition.phases) for composition in compositions] == [2]
    assert posting(compositions) == []
