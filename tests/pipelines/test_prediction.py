"""The model of a layer's time, the published trace beside it, and which layer a dispatch belongs to."""

from dataclasses import replace

import pytest

from predecode.custom_kernels.targets import GFX942, GFX950
from predecode.pipelines.chips import MI300X, MI355X
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.layer_of_dispatch import layers_of_dispatches
from predecode.pipelines.manifest import Audit, Binding, Dispatch, TargetRecord
from predecode.pipelines.prediction import DISPATCH_SECONDS, predicted_layer, predicted_layers, rival_summary
from predecode.pipelines.rival_trace import ALL_REDUCES, TRACE, work_of
from tests.pipelines.small_artifact import manifest, step_entry


def dispatch(name, *bindings, after=(), read=1000):
    accesses = (b if isinstance(b, Binding) else Binding(b, "read", 10) for b in bindings)
    return Dispatch(name, "kernel", (1, 1, 1), read, 0, tuple(accesses), tuple(after))


def writes(name):
    return Binding(name, "read_write", 10)


def layer(number, first):
    """Two chains that meet; ``first`` is the index of the first dispatch in the entry point."""
    prefix = f"layers.{number}."
    before = (first - 1,) if first else ()
    return [
        dispatch("norm", f"{prefix}input_norm.weight", after=before),
        dispatch("gemm+gemm", f"{prefix}attention.qkv_a.values", f"{prefix}indexer.wk.values", after=(first,)),
        dispatch("topk_slots", after=(first + 1,)),
        dispatch("sparse_mla", writes(f"{prefix}latent_cache"), after=(first + 1, first + 2)),
    ]


def artifact(*dispatches, rows=4, device="hip", **model):
    entry = replace(step_entry(rows), audit=Audit(tuple(dispatches), 0, 0, 0, ()))
    whole = manifest((entry,), None)
    target = TargetRecord("gfx950", device, "gfx950", "e4m3fn", 8e12, 256)
    return replace(whole, target=target, model=replace(whole.model, **model))


def test_layers_follow_parameters_then_results():
    dispatches = [dispatch("embed", "embedding.weight"), *layer(0, 1), *layer(1, 5)]
    dispatches += [dispatch("head", "output.weight", after=(8,)), dispatch("argmax", after=(9,))]
    layers = layers_of_dispatches(Audit(tuple(dispatches), 0, 0, 0, ()))
    assert layers == (None, 0, 0, 0, 0, 1, 1, 1, 1, None, None)


def test_a_layer_costs_its_dispatches_and_its_bytes():
    found = predicted_layers(artifact(*layer(3, 0), *layer(4, 4)))
    assert [(p.layer, p.rows, len(p.dispatches), p.levels, p.bytes) for p in found] == [
        (3, 4, 4, 4, 4000),
        (4, 4, 4, 4, 4000),
    ]
    for chip, bandwidth in ((MI355X, 8.0e12), (MI300X, 5.3e12)):
        assert found[0].floor_seconds(chip) == pytest.approx(4000 / bandwidth)
        assert found[0].predicted_seconds(chip) == pytest.approx(4 * DISPATCH_SECONDS + 4000 / bandwidth)


def test_parallel_dispatches_share_a_level():
    chain = layer(3, 0)
    beside = dispatch("gemm", "layers.3.indexer.wq_b.values", after=(0,))
    assert predicted_layer(artifact(*chain, beside), 4, 3).levels == 4


def test_only_amd_chips_are_predicted():
    assert predicted_layers(artifact(*layer(3, 0), device="cuda")) == ()


def test_a_layer_that_is_not_there():
    with pytest.raises(PredecodeError, match=r"no layer 5 of 4 rows in the artifact; choose one of: layer 3 of 4 rows"):
        predicted_layer(artifact(*layer(3, 0)), 4, 5)


def test_the_chips_are_the_targets():
    for chip, target in ((MI355X, GFX950), (MI300X, GFX942)):
        assert (chip.memory_bandwidth, chip.compute_units) == (target.memory_bandwidth, target.compute_units)


def test_the_trace_is_whole():
    assert len(TRACE) == 42
    assert sum(kernel.microseconds for kernel in TRACE) == pytest.approx(287, abs=0.5)
    assert sum(kernel.microseconds for kernel in ALL_REDUCES) == pytest.approx(26)
    assert "42 kernels, 287 µs" in rival_summary()


def complete_layer():
    """A layer with everything the trace has."""
    p = "layers.3."
    return [
        dispatch("add_rms_norm_group_quant", f"{p}input_norm.weight"),
        dispatch("gemm+gemm", f"{p}attention.qkv_a.values", f"{p}indexer.wk.values", after=(0,)),
        dispatch("linear", f"{p}indexer.weights_proj.weight", after=(0,)),
        dispatch("norms", f"{p}attention.query_norm.weight", after=(1,)),
        dispatch("gemm+gemm", f"{p}attention.q_b.values", f"{p}indexer.wq_b.values", after=(3,)),
        dispatch("key", f"{p}indexer.k_norm.weight", writes(f"{p}indexer_cache"), after=(1,)),
        dispatch("indexer_q_prepare, absorb_query", "rope_table", f"{p}attention.kv_b.values", after=(2, 4)),
        dispatch("rope", writes(f"{p}latent_cache"), after=(6,)),
        dispatch("paged_mqa_logits", f"{p}indexer_cache", after=(5, 6)),
        dispatch("topk_slots", after=(8,)),
        dispatch("sparse_mla", f"{p}latent_cache", after=(7, 9)),
        dispatch("value_up", f"{p}attention.kv_b.values", after=(10,)),
        dispatch("gemm", f"{p}attention.o_proj.values", after=(11,)),
        dispatch("add_rms_norm_group_quant", f"{p}post_attention_norm.weight", after=(12,)),
        dispatch("linear", f"{p}mlp.router.weight", after=(13,)),
        dispatch("router_topk", f"{p}mlp.router.correction_bias", after=(14,)),
        dispatch("moe_gate_up", f"{p}mlp.experts.gate_up.values", after=(15,)),
        dispatch("moe_down", f"{p}mlp.experts.down.values", after=(16,)),
    ]


GLM = {"config": {"model_type": "glm_moe_dsa", "hidden_size": 6144}, "tensor_parallel": 8}


def test_every_traced_kernel_finds_its_dispatch_once():
    work = work_of(tuple(complete_layer()))
    found = [kernel for kernels in work for kernel in kernels]
    assert sorted(map(id, found)) == sorted(id(kernel) for kernel in TRACE if kernel.places)
    roles = {d.name: {kernel.role for kernel in kernels} for d, kernels in zip(complete_layer(), work, strict=True)}
    assert roles["topk_slots"] == {"top-k and page map"}
    assert roles["sparse_mla"] == {"sparse MLA, partial", "sparse MLA, combine"}
    assert "w_kc" in roles["indexer_q_prepare, absorb_query"] and "gates" in roles["indexer_q_prepare, absorb_query"]


def test_the_trace_stands_beside_a_layer_of_its_model_only():
    assert predicted_layer(artifact(*complete_layer(), **GLM), 4, 3).rival is not None
    assert predicted_layer(artifact(*complete_layer()), 4, 3).rival is None, "another model"
    assert predicted_layer(artifact(*complete_layer(), **(GLM | {"tensor_parallel": 1})), 4, 3).rival is None
    assert predicted_layer(artifact(*complete_layer(), rows=3, **GLM), 3, 3).rival is None
    without_indexer = [d for d in complete_layer() if d.name != "topk_slots"]
    dense = [replace(d, after=()) for d in without_indexer]
    assert predicted_layer(artifact(*dense, **GLM), 4, 3).rival is None


def test_markdown_names_dispatches_weights_and_sums():
    text = predicted_layer(artifact(*complete_layer(), **GLM), 4, 3).to_markdown()
    lines = text.splitlines()
    assert lines[0] == "| dispatch | bytes | floor µs MI355X | floor µs MI300X | traced µs elsewhere |"
    assert "| `gemm+gemm (attention.qkv_a, indexer.wk)` | 1 kB | < 0.01 | < 0.01 | 37.1 (3 kernels) |" in lines
    assert "| `topk_slots` | 1 kB | < 0.01 | < 0.01 | 13.2 |" in lines
    assert any(line.startswith("| **18 dispatches, 15 levels** | 18 kB |") and "| 261 |" in line for line in lines)
    assert "| **predicted** |  | **72** | **72** |  |" in lines
    assert "A model, not a measurement" in text and "42 kernels, 287 µs traced" in text
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1
