"""Every parameter holds the right numbers of the checkpoint, and a wrong one is noticed."""

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, FLOAT32
from predecode.export.rope_table import rope_table
from predecode.export.shard import Shard
from predecode.export.weights import DictSource, load_into
from predecode.export.weights.transfer import model_parameters
from tests.export.weights.checkpoints import DEEPSEEK, GLM, plain_shapes, random_checkpoint, wrong_linears

SINGLE = Shard()


def load(config, tensors, element_format, shard=SINGLE, layers=None, max_context=8):
    """The parameters of one rank, from poisoned tensors so that an element never filled is noticed."""
    source = DictSource(tensors)
    parts = model_parameters(source, config, layers, shard, element_format, max_context)
    outputs = {name: facts for part in parts for name, facts in part.outputs.items()}
    state = {name: torch.empty(facts.shape, dtype=facts.dtype) for name, facts in outputs.items()}
    for tensor in state.values():
        tensor.view(torch.uint8).fill_(0xFF)
    load_into(state, source, config, shard, element_format)
    return state


@pytest.fixture(scope="module")
def fp8_checkpoint():
    return random_checkpoint(GLM, torch.float8_e4m3fn)


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ, FLOAT32], ids=lambda f: f.name)
@pytest.mark.parametrize("config", [GLM, DEEPSEEK], ids=lambda c: c.model_type)
def test_fp8_checkpoint_keeps_its_numbers(config, element_format):
    tensors = random_checkpoint(config, torch.float8_e4m3fn)
    state = load(config, tensors, element_format)
    # FLOAT32 rounds the product of value and scale once.
    relative = 0.0 if element_format.is_quantized else 2.0**-24
    assert wrong_linears(config, tensors, state, range(config.num_hidden_layers), relative=relative) == []


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_unquantized_checkpoint_is_quantized(dtype, element_format):
    tensors = random_checkpoint(GLM, dtype)
    state = load(GLM, tensors, element_format)
    # The worst element is half a step of a block's largest binade away: 1/16 of it, in 3 mantissa bits.
    assert wrong_linears(GLM, tensors, state, range(3), relative=1 / 16) == []
    assert wrong_linears(GLM, tensors, state, range(3), relative=1 / 256) != []


def test_unquantized_checkpoint_is_kept_in_float32():
    tensors = random_checkpoint(GLM, torch.float32)
    state = load(GLM, tensors, FLOAT32)
    assert wrong_linears(GLM, tensors, state, range(3)) == []
    assert state["layers.1.mlp.experts.gate_up.scales"].eq(1).all()


def test_layers_may_mix_fp8_and_bfloat16(fp8_checkpoint):
    tensors = dict(fp8_checkpoint)
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    del tensors[f"{name}_scale_inv"]
    tensors[name] = tensors[name].bfloat16()
    state = load(GLM, tensors, E4M3FN)
    assert wrong_linears(GLM, tensors, state, range(3), relative=1 / 16) == []


def test_fused_experts_equal_separate_ones():
    tensors = random_checkpoint(GLM, torch.bfloat16)
    fused = {name: tensor for name, tensor in tensors.items() if ".mlp.experts." not in name}
    for layer in (1, 2):
        experts = [f"model.layers.{layer}.mlp.experts.{e}." for e in range(GLM.n_routed_experts)]
        gate_up = [torch.cat([tensors[f"{e}gate_proj.weight"], tensors[f"{e}up_proj.weight"]]) for e in experts]
        fused[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = torch.stack(gate_up)
        down = [tensors[f"{e}down_proj.weight"] for e in experts]
        fused[f"model.layers.{layer}.mlp.experts.down_proj"] = torch.stack(down)
    for shard in (SINGLE, Shard(2, 1)):
        separate, together = (load(GLM, t, E4M3FN, shard) for t in (tensors, fused))
        assert separate.keys() == together.keys()
        for name, tensor in separate.items():
            assert torch.equal(tensor.view(torch.uint8), together[name].view(torch.uint8)), name


@pytest.mark.parametrize("element_format", [E4M3FN, FLOAT32], ids=lambda f: f.name)
def test_plain_parameters_are_copied(fp8_checkpoint, element_format):
    state = load(GLM, fp8_checkpoint, element_format)
    ours = {
        "input_layernorm.weight": "input_norm.weight",
        "post_attention_layernorm.weight": "post_attention_norm.weight",
        "self_attn.q_a_layernorm.weight": "attention.query_norm.weight",
        "self_attn.kv_a_layernorm.weight": "attention.latent_norm.weight",
        "self_attn.indexer.k_norm.weight": "indexer.k_norm.weight",
        "self_attn.indexer.k_norm.bias": "indexer.k_norm.bias",
        "self_attn.indexer.weights_proj.weight": "indexer.weights_proj.weight",
        "mlp.gate.weight": "mlp.router.weight",
        "mlp.gate.e_score_correction_bias": "mlp.router.correction_bias",
    }
    names = {"model.embed_tokens.weight": "embedding.weight", "model.norm.weight": "final_norm.weight"}
    names["lm_head.weight"] = "output.weight"
    for layer in range(3):
        for name in plain_shapes(GLM, layer):
            names[f"model.layers.{layer}.{name}"] = f"layers.{layer}.{ours[name]}"
    for theirs, name in names.items():
        dtype = torch.float32 if name.endswith("correction_bias") else element_format.activation_dtype
        assert state[name].dtype == dtype
        assert torch.equal(state[name], fp8_checkpoint[theirs].to(dtype)), name
    table = state["rope_table"]
    assert torch.equal(table, rope_table(GLM.rope_parameters, GLM.qk_rope_head_dim, 8))
    linear = {name for name in state if name.endswith((".values", ".scales"))}
    assert state.keys() == linear | set(names.values()) | {"rope_table"}


def test_shared_selection_layer_has_no_indexer(fp8_checkpoint):
    state = load(GLM, fp8_checkpoint, E4M3FN)
    assert any(name.startswith("layers.1.indexer.") for name in state)
    assert not any(name.startswith("layers.2.indexer.") for name in state)


def swap_gate_and_up(state):
    values = state["layers.0.mlp.gate_up.values"]
    half = values.shape[0] // 2
    values.copy_(torch.cat([values[half:], values[:half]]))


def transpose_scales(state):
    scales = state["layers.0.mlp.gate_up.scales"]
    scales.copy_(scales.clone().reshape(scales.shape[::-1]).T)


def halve_scale(state):
    state["layers.1.mlp.experts.down.scales"][3, 1, 0] /= 2


def drop_tile(state):
    state["layers.1.mlp.experts.gate_up.values"].view(torch.uint8)[2, 3, 4] = 0


def untile(state):
    values = state["layers.0.attention.o_proj.values"]
    bands, tiles = values.shape[:2]
    values.copy_(values.transpose(1, 2).reshape(bands, tiles, 16, 16).clone())


def swap_experts(state):
    state["layers.1.mlp.experts.down.values"].copy_(state["layers.1.mlp.experts.down.values"].flip(0).clone())


def shift_heads(state):
    state["layers.2.attention.kv_b.values"].copy_(state["layers.2.attention.kv_b.values"].roll(1, 0).clone())


@pytest.mark.parametrize(
    "damage",
    [swap_gate_and_up, transpose_scales, halve_scale, drop_tile, untile, swap_experts, shift_heads],
    ids=lambda f: f.__name__,
)
def test_damage_is_noticed(fp8_checkpoint, damage):
    state = load(GLM, fp8_checkpoint, E4M3FN)
    before = {name: tensor.clone() for name, tensor in state.items()}
    damage(state)
    changed = {
        name.rpartition(".")[0]
        for name, tensor in state.items()
        if not torch.equal(tensor.view(torch.uint8), before[name].view(torch.uint8))
    }
    wrong = wrong_linears(GLM, fp8_checkpoint, state, range(3))
    assert len(changed) == 1 and {name.partition("[")[0] for name in wrong} == changed


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("config", [GLM, DEEPSEEK], ids=lambda c: c.model_type)
def test_shards_hold_their_part(config, rank):
    tensors = random_checkpoint(config, torch.float8_e4m3fn)
    layers = range(config.num_hidden_layers)
    state = load(config, tensors, E4M3FNUZ, Shard(2, rank))
    assert wrong_linears(config, tensors, state, layers, 2, rank) == []
    assert wrong_linears(config, tensors, state, layers, 2, 1 - rank) != []
    vocabulary = slice(rank * 32, rank * 32 + 32)
    assert torch.equal(state["output.weight"], tensors["lm_head.weight"][vocabulary])
    assert torch.equal(state["embedding.weight"], tensors["model.embed_tokens.weight"])


def test_shards_reassemble_to_the_whole(fp8_checkpoint):
    """Split along the axis that each weight is split on, in whole tiles, so stored tensors join by `cat`."""
    whole = load(GLM, fp8_checkpoint, E4M3FN)
    shards = [load(GLM, fp8_checkpoint, E4M3FN, Shard(2, rank)) for rank in (0, 1)]

    for name, tensor in whole.items():
        parts = [shard[name].view(torch.uint8) for shard in shards]
        if parts[0].shape == tensor.view(torch.uint8).shape:
            assert torch.equal(parts[0], parts[1]), f"{name} is replicated but differs"
            joined = parts[0]
        else:
            experts = 1 if ".experts." in name else 0
            joint = experts if name.split(".")[-2] in ("q_b", "kv_b", "gate_up", "output") else experts + 1
            if "gate_up" in name:  # each rank holds half of the gate rows, then half of the up rows
                joined = torch.cat([part.unflatten(joint, (2, -1)) for part in parts], joint + 1)
                joined = joined.flatten(joint, joint + 1)
            else:
                joined = torch.cat(parts, joint)
        assert torch.equal(joined, tensor.view(torch.uint8)), name
