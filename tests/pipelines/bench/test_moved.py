"""Bytes of one batch, against counts made by hand."""

from dataclasses import replace

import pytest

from predecode.pipelines.bench.batch import Batch
from predecode.pipelines.bench.moved import bytes_moved, expected_experts
from predecode.pipelines.bench.report import weight_of
from predecode.pipelines.manifest import Binding, Dispatch
from tests.pipelines.small_artifact import ROW_COUNTS, manifest, step_entry

EXPERTS = "layers.1.mlp.experts.gate_up.values"
CACHE = "layers.0.latent_cache"


def small(**config):
    """The small manifest (pages of 64 tokens, 1024 bytes) with more of a model's configuration."""
    made = manifest(tuple(step_entry(rows) for rows in ROW_COUNTS), None)
    return replace(made, model=replace(made.model, config=made.model.config | config))


def dispatch(name: str, *bindings: Binding) -> Dispatch:
    read = sum(b.bytes for b in bindings if b.access == "read")
    written = sum(b.bytes for b in bindings) - read
    some, _ = step_entry(1).audit.dispatches
    return replace(some, name=name, bytes_read=read, bytes_written=written, bindings=bindings)


def test_a_cache_is_read_as_far_as_the_rows_select():
    attention = dispatch("sparse_mla", Binding(CACHE, "read", 4096), Binding("transient", "write", 7))
    batch = Batch("ragged", (10, 70, 100))
    # 16 bytes a token: 10 + 20 + 20 of them.
    assert bytes_moved(small(index_topk=20), batch, attention).read == 50 * 16
    assert bytes_moved(small(), batch, attention).read == 180 * 16
    assert bytes_moved(small(), batch, attention).written == 7


def test_no_more_than_the_audit_says():
    attention = dispatch("sparse_mla", Binding(CACHE, "read", 100))
    assert bytes_moved(small(), Batch("100", (100,) * 3), attention).read == 100


def test_a_cache_that_is_written_counts_as_audited():
    store = dispatch("store", Binding(CACHE, "read_write", 480), Binding("positions", "read", 24))
    moved = bytes_moved(small(), Batch("1", (1,) * 3), store)
    assert (moved.read, moved.written, moved.expected) == (24, 480, False)


@pytest.mark.parametrize("op", ["paged_mqa_logits", "indexer_q_prepare_and_logits"])
def test_scores_count_as_far_as_the_lengths(op):
    batch = Batch("ragged", (3, 4, 5))
    write = dispatch(op, Binding("transient", "read", 9), Binding("transient", "write", 1000))
    assert bytes_moved(small(), batch, write).total == 9 + 12 * 4
    read = dispatch("topk_slots", Binding("transient", "read", 1000), Binding("transient", "write", 30))
    assert bytes_moved(small(), batch, read).total == 12 * 4 + 30
    composed = replace(read, name="topk_slots+other")
    assert bytes_moved(small(), batch, composed).total == 1030


def test_rows_that_keep_all_tokens_are_not_scored():
    batch = Batch("ragged", (3, 4, 5, 70))
    write = dispatch("paged_mqa_logits", Binding("transient", "read", 9), Binding("transient", "write", 1000))
    assert bytes_moved(small(index_topk=4), batch, write).total == 9 + 75 * 4
    assert bytes_moved(small(index_topk=70), batch, write).total == 9


@pytest.mark.parametrize(("rows", "routed"), [(1, 2.0), (2, 3.5), (1000, 8.0)])
def test_expected_experts(rows, routed):
    model = small(n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1)
    assert expected_experts(model, rows) == pytest.approx(routed + 1)
    assert expected_experts(small(), rows) is None


def test_experts_count_as_even_routing_uses_them():
    model = small(n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1)
    # The audit counts an expert for each of 3 rows x 2 choices, and the shared one; 100 bytes each.
    experts = dispatch("moe_gate_up", Binding(EXPERTS, "read", 700), Binding("transient", "write", 50))
    moved = bytes_moved(model, Batch("1", (1, 1, 1)), experts)
    assert moved.expected and moved.total == round(100 * (8 * (1 - 0.75**3) + 1)) + 50
    within = Binding("layers.1", "read", 760, 9000, {EXPERTS.removeprefix("layers.1."): 700, "mlp.gate.bias": 60})
    fused = bytes_moved(model, Batch("1", (1, 1, 1)), dispatch("moe_gate_up, moe_down", within))
    assert fused.expected and fused.total == moved.total - 50 + 60
    single = dispatch("moe_gate_up", Binding(EXPERTS, "read", 300))
    assert bytes_moved(model, Batch("1", (1,)), single).total == 300


def test_weights_are_named_alike_alone_and_in_a_layers_entry():
    alone = dispatch("moe_down", Binding(EXPERTS, "read", 80), Binding("embedding.weight", "read", 8))
    assert weight_of(alone) == "mlp.experts.gate_up"
    parts = {"mlp.experts.gate_up.values": 80, "mlp.experts.gate_up.scales": 4, "input_norm.weight": 2}
    assert (
        weight_of(dispatch("chain", Binding("layers.1", "read", 86, parts=parts))) == "mlp.experts.gate_up, input_norm"
    )
    assert weight_of(dispatch("topk_slots", Binding("transient", "read", 8))) == ""
