"""Seeded weights: any part is the same numbers, and the numbers are sane."""

from dataclasses import replace

import pytest
import torch

from predecode.export.presets import GLM_5_1
from predecode.export.weights import SeededWeights
from tests.export.weights.checkpoints import GLM, linear_shapes, plain_shapes

GATE = "model.layers.1.mlp.experts.3.gate_proj.weight"


def read(source, name, *region):
    region = region or tuple(slice(0, size) for size in source.tensors[name].shape)
    return source.read(name, region)


def test_holds_exactly_the_tensors_of_the_model():
    source = SeededWeights(GLM, 0)
    expected = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    for layer in range(GLM.num_hidden_layers):
        expected |= {f"model.layers.{layer}.{name}" for name in plain_shapes(GLM, layer)}
        for name in linear_shapes(GLM, layer):
            full = f"model.layers.{layer}.{name}.weight"
            expected |= {full, f"{full}_scale_inv"}
    assert source.tensors.keys() == expected
    for name, facts in source.tensors.items():
        tensor = read(source, name)
        assert (tuple(tensor.shape), tensor.dtype) == (facts.shape, facts.dtype)
        assert torch.isfinite(tensor.float()).all()


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        (GATE, slice(128, 256), slice(0, 256)),
        (GATE, slice(200, 201), slice(13, 130)),
        (GATE, slice(0, 256), slice(128, 256)),
        (f"{GATE}_scale_inv", slice(1, 2), slice(1, 2)),
        ("model.embed_tokens.weight", slice(50, 64), slice(5, 6)),
        ("model.layers.1.mlp.gate.weight", slice(1, 3), slice(64, 192)),
    ],
)
def test_part_equals_the_whole(name, rows, columns):
    source = SeededWeights(GLM, 7)
    part, whole = read(source, name, rows, columns), read(source, name)[rows, columns]
    assert torch.equal(part.view(torch.uint8), whole.contiguous().view(torch.uint8))


def test_numbers_depend_on_seed_and_name_and_block():
    one, two = SeededWeights(GLM, 1), SeededWeights(GLM, 2)
    gate = read(one, GATE).view(torch.uint8)
    assert torch.equal(gate, read(SeededWeights(GLM, 1), GATE).view(torch.uint8))
    others = [read(two, GATE), read(one, GATE.replace("3", "2")), read(one, GATE.replace("gate", "up"))]
    for other in others:
        # 256 equally likely codes: about one in 256 agrees by chance.
        assert (gate == other.view(torch.uint8)).float().mean() < 0.02
    assert (gate[:128] == gate[128:]).float().mean() < 0.02
    assert (gate[:, :128] == gate[:, 128:]).float().mean() < 0.02


def test_parts_of_a_true_size_need_no_whole():
    source = SeededWeights(GLM_5_1, 0)
    name = "model.layers.77.mlp.experts.255.down_proj.weight"
    part = read(source, name, slice(6016, 6144), slice(1792, 2048))
    assert part.shape == (128, 256)
    corner = read(source, name, slice(6116, 6144), slice(1920, 2048))
    assert torch.equal(part[100:, 128:].view(torch.uint8), corner.view(torch.uint8))


@pytest.mark.parametrize(
    ("name", "gain"),
    [
        (GATE, 1.0),
        (GATE.replace("gate", "down"), 0.07),
        ("model.layers.1.mlp.shared_experts.down_proj.weight", 0.25),
        ("model.layers.0.self_attn.o_proj.weight", 0.5),
        ("model.layers.0.self_attn.q_b_proj.weight", 1.0),
    ],
)
def test_linear_weights_have_their_gain(name, gain):
    """weight ~ gain / sqrt(fan in), so outputs are ``gain`` times as large as inputs."""
    source = SeededWeights(replace(GLM, hidden_size=1024, moe_intermediate_size=512), 0)
    values, scales = read(source, name).float(), read(source, f"{name}_scale_inv")
    rows, columns = values.shape
    weight = values * scales.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)
    assert 0.85 < (weight.square().mean() * columns).sqrt() / gain < 1.25
    assert weight.mean().abs() * columns**0.5 < 0.02 * gain
    assert scales.unique().numel() == scales.numel() and (scales > 0).all()
    assert values.abs().max() == 448


def route(config, layer, rows):
    """Experts that the seeded router chooses for normal noise."""
    source, gate = SeededWeights(config, 0), f"model.layers.{layer}.mlp.gate."
    inputs = torch.randn(rows, config.hidden_size, generator=torch.Generator().manual_seed(0))
    scores = (inputs @ read(source, f"{gate}weight").float().T).sigmoid()
    return (scores + read(source, f"{gate}e_score_correction_bias")).topk(config.num_experts_per_tok).indices


def test_router_spreads_over_the_experts():
    assert route(GLM, 1, 400).flatten().bincount(minlength=4).min() > 20


@pytest.mark.parametrize("layer", [3, 77])
def test_a_batch_uses_nearly_as_many_experts_as_even_routing_would(layer):
    """Else a layer would be timed with less to read than a trained model has."""
    even = 256 * (1 - (1 - 8 / 256) ** 64)
    assert 0.93 * even < len(route(GLM_5_1, layer, 64).unique()) < even
