"""How a step is cut, what each segment takes and gives, and what its parameters are called."""

import dataclasses

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, FLOAT32
from predecode.export.exporter import example_arguments
from predecode.export.model.segments import build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.presets import DEEPSEEK_V3_2, GLM_5_1, TINY
from predecode.export.shard import SINGLE, Shard
from predecode.pipelines.errors import PredecodeError

GEOMETRY = Geometry(max_context=200, pages=10)

ATTENTION = {
    "input_norm.weight",
    "attention.query_norm.weight",
    "attention.latent_norm.weight",
    *(f"attention.{m}.{p}" for m in ("qkv_a", "q_b", "kv_b", "o_proj") for p in ("values", "scales")),
}
INDEXER = {
    "indexer.k_norm.weight",
    "indexer.k_norm.bias",
    "indexer.weights_proj.weight",
    *(f"indexer.{m}.{p}" for m in ("wq_b", "wk") for p in ("values", "scales")),
}
DENSE = {
    "post_attention_norm.weight",
    *(f"mlp.{m}.{p}" for m in ("gate_up", "down") for p in ("values", "scales")),
}
MOE = {
    "post_attention_norm.weight",
    "mlp.router.weight",
    "mlp.router.correction_bias",
    *(f"mlp.experts.{m}.{p}" for m in ("gate_up", "down") for p in ("values", "scales")),
}


def named(layer: int, names: set[str]) -> set[str]:
    return {f"layers.{layer}.{name}" for name in names}


def meta_segments(config, layers, shard, reduce, element_format=E4M3FN, geometry=GEOMETRY):
    with torch.device("meta"):
        return build_segments(config, layers, shard, reduce, element_format, geometry)


def test_parameter_names_of_the_whole_step():
    (step,) = meta_segments(TINY, None, SINGLE, "none")
    expected = {"embedding.weight", "rope_table", "final_norm.weight", "output.weight"}
    expected |= named(0, ATTENTION | INDEXER | DENSE) | named(1, ATTENTION | INDEXER | MOE)
    expected |= named(2, ATTENTION | MOE) | named(3, ATTENTION | INDEXER | MOE)
    assert step.name == "step"
    assert set(step.state_dict()) == expected
    assert not any(parameter.requires_grad for parameter in step.parameters())


def test_segments_share_the_names_and_cover_them():
    (step,) = meta_segments(TINY, None, SINGLE, "none")
    names = [set(segment.state_dict()) for segment in meta_segments(TINY, None, SINGLE, "external")]
    assert set.union(*names) == set(step.state_dict())
    assert names[1] == named(0, DENSE)
    assert names[4] == named(2, ATTENTION) | {"rope_table"}
    assert names[-1] == {"final_norm.weight", "output.weight"}


def shapes(config, layers, shard, element_format=E4M3FN):
    (segment,) = meta_segments(config, layers, shard, "none", element_format, Geometry(1024, 16))
    return {name: (tuple(t.shape), t.dtype) for name, t in segment.state_dict().items()}


def test_rank_shapes_of_glm_5_1():
    """SGLang's per-rank shapes at eight ranks, in tiles."""
    got = shapes(GLM_5_1, (0, 3), Shard(8, 3))
    fp8, f32, bf16 = torch.float8_e4m3fn, torch.float32, torch.bfloat16

    def tiled(rows, columns):
        return (rows // 16, columns // 16, 16, 16)

    for name, rows, columns, scale_rows in (
        ("attention.qkv_a", 2624, 6144, 21),
        ("attention.q_b", 2048, 2048, 16),
        ("attention.o_proj", 6144, 2048, 48),
        ("indexer.wq_b", 4096, 2048, 32),
        ("indexer.wk", 128, 6144, 1),
    ):
        assert got[f"layers.3.{name}.values"] == (tiled(rows, columns), fp8)
        assert got[f"layers.3.{name}.scales"] == ((scale_rows, columns // 128), f32)
    assert got["layers.3.attention.kv_b.values"] == ((8, 192 + 256, 512), fp8)
    assert got["layers.3.attention.kv_b.scales"] == ((28, 4), f32)
    assert got["layers.3.indexer.weights_proj.weight"] == ((32, 6144), bf16)
    assert got["layers.3.mlp.router.weight"] == ((256, 6144), bf16)
    assert got["layers.3.mlp.router.correction_bias"] == ((256,), f32)
    assert got["layers.3.mlp.experts.gate_up.values"] == ((257, *tiled(512, 6144)), fp8)
    assert got["layers.3.mlp.experts.gate_up.scales"] == ((257, 4, 48), f32)
    assert got["layers.3.mlp.experts.down.values"] == ((257, *tiled(6144, 256)), fp8)
    assert got["layers.3.mlp.experts.down.scales"] == ((257, 48, 2), f32)
    assert got["layers.0.mlp.gate_up.values"] == (tiled(3072, 6144), fp8)
    assert got["layers.0.mlp.down.values"] == (tiled(6144, 1536), fp8)
    assert got["rope_table"] == ((1024, 64), f32)


def test_rank_shapes_of_deepseek_v3_2_and_formats():
    got = shapes(DEEPSEEK_V3_2, (60,), Shard(8, 0), E4M3FNUZ)
    assert got["layers.60.attention.qkv_a.values"] == (
        (2112 // 16, 7168 // 16, 16, 16),
        torch.float8_e4m3fnuz,
    )
    assert got["layers.60.attention.q_b.values"][0] == (3072 // 16, 1536 // 16, 16, 16)
    assert got["layers.60.attention.kv_b.values"][0] == (16, 256, 512)
    assert shapes(TINY, (0,), SINGLE, FLOAT32)["layers.0.input_norm.weight"] == ((256,), torch.float32)


def summary(specs):
    return [(spec.name, spec.role) for spec in specs]


def test_the_whole_step_takes_tokens_and_gives_logits():
    (step,) = meta_segments(TINY, None, Shard(2, 1), "none")
    arguments, results = step.arguments(3), step.results(3)
    caches = [f"layers.{i}.{kind}" for i in range(4) for kind in ("indexer_cache", "latent_cache")]
    caches.remove("layers.2.indexer_cache")
    inputs = ["tokens", "positions", "slot_mapping", "lengths", "block_table"]
    assert summary(arguments) == [(n, "input") for n in inputs] + [(n, "cache") for n in caches]
    assert summary(results) == [("logits", "output")] + [(n, "cache") for n in caches]
    assert [r.in_place for r in results] == [None, *caches]
    by_name = {spec.name: (spec.shape, spec.dtype, spec.layout) for spec in (*arguments, *results)}
    assert by_name["tokens"] == ((3,), torch.int64, "row-major")
    assert by_name["lengths"] == ((3,), torch.int32, "row-major")
    assert by_name["block_table"] == ((3, 4), torch.int32, "row-major")
    assert by_name["logits"] == ((3, 256), torch.float32, "row-major")
    assert by_name["layers.0.indexer_cache"] == ((10, 8448), torch.int8, "preshuffled page")
    assert by_name["layers.0.latent_cache"] == ((10, 64 * 192), torch.int8, "latent page")


def test_external_reduction_cuts_after_every_half():
    segments = meta_segments(TINY, None, SINGLE, "external")
    names = [f"layer_{i}_{half}" for i in range(4) for half in ("attention", "mlp")]
    assert [segment.name for segment in segments] == [*names, "output"]
    took = [[n for n, _ in summary(s.arguments(1)) if "cache" not in n] for s in segments]
    gave = [[n for n, _ in summary(s.results(1)) if "cache" not in n] for s in segments]
    step_inputs = ["positions", "slot_mapping", "lengths", "block_table"]
    assert took[0] == ["tokens", *step_inputs]
    assert took[1] == ["hidden", "residual"]
    assert took[2] == ["hidden", "residual", *step_inputs]
    assert took[4] == ["hidden", "residual", "positions", "slot_mapping", "selected_slots"]
    assert took[8] == ["hidden", "residual"]
    assert gave[0] == gave[1] == ["hidden_partial", "residual"]
    assert gave[2] == ["hidden_partial", "residual", "selected_slots"]
    assert gave[8] == ["logits"]
    assert {role for s in segments[1:] for n, role in summary(s.arguments(1)) if n == "hidden"} == {"state"}


def test_ranks_that_sum_among_themselves_have_one_segment_with_mailboxes():
    (step,) = meta_segments(TINY, None, Shard(2, 1), "peers")
    (alone,) = meta_segments(TINY, None, Shard(2, 1), "none")
    assert step.name == alone.name
    assert summary(step.arguments(3)) == [*summary(alone.arguments(3)), ("mailboxes", "mailboxes")]
    assert summary(step.results(3)) == summary(alone.results(3))
    assert (step.arguments(3)[-1].shape, step.arguments(3)[-1].dtype) == ((2, 2, 2), torch.int64)
    graph = torch.export.export(step.to_empty(device="cpu"), example_arguments(step, 3), strict=False).graph
    sums = [node for node in graph.nodes if "all_reduce" in str(node.target)]
    assert [node.args[2:] for node in sums] == [(1, 0), (1, 1)] * 4, "ranks and turns, half by half"


def test_chosen_layers():
    first, rest = (meta_segments(TINY, layers, SINGLE, "none")[0] for layers in ((0,), (2, 3)))
    assert (first.name, rest.name) == ("layer_0", "layer_2_3")
    assert [n for n, role in summary(first.arguments(1)) if role == "input"] == [
        "hidden",
        "positions",
        "slot_mapping",
        "lengths",
        "block_table",
    ]
    assert [n for n, role in summary(rest.arguments(1)) if role == "input"] == [
        "hidden",
        "residual",
        "positions",
        "slot_mapping",
        "lengths",
        "block_table",
        "selected_slots",
    ]
    assert summary(rest.results(1))[:2] == [("hidden", "output"), ("residual", "output")]
    last = meta_segments(TINY, (1, 3), SINGLE, "external")[-1]
    assert last.name == "layer_3_mlp"
    assert summary(last.results(1)) == [("hidden_partial", "output"), ("residual", "output")]
    # Layer 3 has an indexer of its own, so nothing needs layer 1's selection.
    assert "selected_slots" not in dict(summary(meta_segments(TINY, (1, 3), SINGLE, "external")[0].results(1)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": (4,)}, "layers 0 to 3"),
        ({"reduce": "tree"}, "reduce 'tree'"),
        ({"geometry": Geometry(1025, 1)}, "max context 1025"),
        ({"shard": Shard(3, 0)}, "num_attention_heads = 4"),
    ],
)
def test_refusals(change, message):
    given = {"layers": None, "shard": SINGLE, "reduce": "none", "geometry": GEOMETRY} | change
    with pytest.raises(PredecodeError, match=message):
        build_segments(TINY, given["layers"], given["shard"], given["reduce"], E4M3FN, given["geometry"])


@pytest.mark.parametrize(("max_context", "pages"), [(0, 1), (1, 0)])
def test_impossible_geometry(max_context, pages):
    with pytest.raises(PredecodeError, match="expected 1 or more"):
        Geometry(max_context, pages)
    assert dataclasses.replace(GEOMETRY, max_context=193).block_table_width == 4
    assert dataclasses.replace(GEOMETRY, max_context=192).block_table_width == 3
