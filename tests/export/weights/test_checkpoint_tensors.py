"""Checkpoints that do not fit their config: each is one line that names the tensor."""

from dataclasses import replace

import pytest
import torch
from transformers import DeepseekV32Config, DeepseekV32ForCausalLM, GlmMoeDsaConfig, GlmMoeDsaForCausalLM

from predecode.custom_kernels.formats import E4M3FN
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.shard import Shard
from predecode.export.weights import DictSource, write_parameters
from predecode.export.weights.checkpoint_tensors import expected_tensors, fused_layers
from predecode.pipelines.errors import PredecodeError
from tests.export.weights.checkpoints import TWO_LAYERS as CONFIG
from tests.export.weights.checkpoints import random_checkpoint

CHECKPOINT = random_checkpoint(CONFIG, torch.float8_e4m3fn)
SINGLE = Shard()
ATTENTION = "model.layers.0.self_attn."
EXPERT = "model.layers.1.mlp.experts.1."


def export(tensors, path, config=CONFIG, layers=None, shard=SINGLE):
    return write_parameters(path / "p.irpa", DictSource(tensors), config, layers, shard, E4M3FN, 8)


@pytest.mark.parametrize(
    ("config_class", "model_class", "config"),
    [
        (GlmMoeDsaConfig, GlmMoeDsaForCausalLM, TINY),
        (DeepseekV32Config, DeepseekV32ForCausalLM, TINY_DEEPSEEK),
    ],
)
def test_names_are_those_of_transformers(config_class, model_class, config):
    fields = config.to_json()
    fields["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    with torch.device("meta"):
        model = model_class(config_class(**fields))
    theirs = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    source = DictSource(model.state_dict())
    fused = fused_layers(source, config)
    assert fused == frozenset(range(1, config.num_hidden_layers))
    ours = {name: tensor.shape for name, tensor in expected_tensors(config, fused).items()}
    assert ours == theirs


def test_complete_checkpoint_is_taken(tmp_path):
    assert export(CHECKPOINT, tmp_path)


def test_tensors_known_to_be_unused_are_skipped(tmp_path):
    unused = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(32),
        "model.layers.0.self_attn.attn.k_scale": torch.tensor(1.0),
        "model.layers.1.self_attn.v_scale": torch.tensor([1.0]),
        "model.layers.2.eh_proj.weight": torch.zeros(2, 2),
        "model.layers.2.mlp.experts.0.up_proj.weight": torch.zeros(2, 2),
    }
    assert export(CHECKPOINT | unused, tmp_path).keys() == export(CHECKPOINT, tmp_path).keys()


def test_chosen_layers_need_only_their_tensors(tmp_path):
    kept = {name: t for name, t in CHECKPOINT.items() if name.startswith("model.layers.1.")}
    names = export(kept, tmp_path, layers=(1,)).keys()
    assert {name.partition(".")[0] for name in names} == {"rope_table", "layers"}
    with pytest.raises(PredecodeError, match=r"tensor model\.embed_tokens\.weight is missing"):
        export(kept, tmp_path)


def without(name):
    return lambda tensors: tensors.pop(name)


def with_tensor(name, tensor):
    return lambda tensors: tensors.update({name: tensor})


def changed(name, change):
    return lambda tensors: tensors.update({name: change(tensors[name])})


BAD_CHECKPOINTS = {
    "missing norm": (without("model.norm.weight"), "tensor model.norm.weight is missing"),
    "missing linear": (
        without(f"{ATTENTION}q_b_proj.weight"),
        f"tensor {ATTENTION}q_b_proj.weight is missing",
    ),
    "missing scales": (
        without(f"{ATTENTION}q_b_proj.weight_scale_inv"),
        f"tensor {ATTENTION}q_b_proj.weight_scale_inv, the scales of an FP8 weight, is missing",
    ),
    "missing expert": (without(f"{EXPERT}up_proj.weight"), f"tensor {EXPERT}up_proj.weight is missing"),
    "missing indexer": (
        without(f"{ATTENTION}indexer.k_norm.bias"),
        f"tensor {ATTENTION}indexer.k_norm.bias is missing",
    ),
    "extra tensor": (
        with_tensor("model.extra.weight", torch.zeros(1)),
        "tensor model.extra.weight is not part of",
    ),
    "extra bias": (
        with_tensor(f"{ATTENTION}q_a_proj.bias", torch.zeros(128)),
        f"tensor {ATTENTION}q_a_proj.bias is not part of",
    ),
    "extra expert": (
        with_tensor("model.layers.1.mlp.experts.4.up_proj.weight", torch.zeros(256, 256)),
        "tensor model.layers.1.mlp.experts.4.up_proj.weight is not part of",
    ),
    "extra layer": (
        with_tensor("model.layers.2.input_layernorm.weight", torch.zeros(256)),
        "tensor model.layers.2.input_layernorm.weight is not part of",
    ),
    "layer after the prediction layer": (
        lambda tensors: tensors.update({f"model.layers.{layer}.eh_proj.weight": torch.zeros(2, 2) for layer in (2, 3)}),
        "tensor model.layers.3.eh_proj.weight is not part of",
    ),
    "misshapen linear": (
        changed(f"{EXPERT}down_proj.weight", lambda t: t[:, :128]),
        f"tensor {EXPERT}down_proj.weight has shape \\[256, 128\\], but config.json makes it \\[256, 256\\]",
    ),
    "transposed scales": (
        changed(f"{ATTENTION}indexer.wq_b.weight_scale_inv", lambda t: t.T),
        f"tensor {ATTENTION}indexer.wq_b.weight_scale_inv has shape \\[1, 16\\], but .* \\[16, 1\\]",
    ),
    "misshapen norm": (
        changed(f"{ATTENTION}q_a_layernorm.weight", lambda t: t[None]),
        f"tensor {ATTENTION}q_a_layernorm.weight has shape \\[1, 128\\]",
    ),
    "integer weight": (
        changed("lm_head.weight", lambda t: t.to(torch.int8)),
        "tensor lm_head.weight has dtype int8, expected bfloat16, float16, float32",
    ),
    "FP8 norm": (
        changed("model.norm.weight", lambda t: t.to(torch.float8_e4m3fn)),
        "tensor model.norm.weight has dtype float8_e4m3fn, expected bfloat16",
    ),
    "E5M2 linear": (
        changed(f"{ATTENTION}o_proj.weight", lambda t: t.float().to(torch.float8_e5m2)),
        f"tensor {ATTENTION}o_proj.weight has dtype float8_e5m2, expected float8_e4m3fn, bfloat16",
    ),
    "bfloat16 scales": (
        changed(f"{ATTENTION}o_proj.weight_scale_inv", lambda t: t.bfloat16()),
        f"tensor {ATTENTION}o_proj.weight_scale_inv has dtype bfloat16, expected float32",
    ),
    "scales of a bfloat16 weight": (
        changed(f"{ATTENTION}o_proj.weight", lambda t: t.bfloat16()),
        f"tensor {ATTENTION}o_proj.weight_scale_inv scales {ATTENTION}o_proj.weight, which is bfloat16",
    ),
    "scales without weight": (
        without(f"{ATTENTION}kv_b_proj.weight"),
        f"tensor {ATTENTION}kv_b_proj.weight is missing",
    ),
    "scaled key cache": (
        with_tensor("model.layers.1.self_attn.attn.k_scale", torch.tensor(0.5)),
        "tensor model.layers.1.self_attn.attn.k_scale scales the cache by 0.5",
    ),
    "scaled value cache": (
        with_tensor("model.layers.1.self_attn.v_scale", torch.tensor([2.0])),
        "tensor model.layers.1.self_attn.v_scale scales the cache by 2",
    ),
    "NaN code": (
        changed(f"{EXPERT}gate_proj.weight", lambda t: t.view(torch.uint8).fill_diagonal_(0x7F).view(t.dtype)),
        f"tensor {EXPERT}gate_proj.weight cannot be used: it holds NaN",
    ),
    "negative scale": (
        changed(f"{EXPERT}gate_proj.weight_scale_inv", torch.neg),
        f"tensor {EXPERT}gate_proj.weight cannot be used: a scale is negative",
    ),
    "infinite norm": (
        changed("model.norm.weight", lambda t: t / 0),
        "tensor model.norm.weight holds NaN or infinity",
    ),
    "NaN in a bfloat16 linear": (
        lambda tensors: (
            tensors.pop(f"{ATTENTION}o_proj.weight_scale_inv"),
            tensors.update({f"{ATTENTION}o_proj.weight": tensors[f"{ATTENTION}o_proj.weight"].float() / 0}),
        ),
        f"tensor {ATTENTION}o_proj.weight cannot be used: it holds NaN or infinity",
    ),
}


@pytest.mark.parametrize(("damage", "message"), BAD_CHECKPOINTS.values(), ids=BAD_CHECKPOINTS.keys())
def test_bad_checkpoint_is_one_line_and_leaves_no_file(tmp_path, damage, message):
    tensors = {name: tensor.clone() for name, tensor in CHECKPOINT.items()}
    damage(tensors)
    with pytest.raises(PredecodeError, match=f"tensors in memory: {message}") as raised:
        export(tensors, tmp_path)
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


BAD_CONFIGS = {
    "another vocabulary": (replace(CONFIG, vocab_size=128), "model.embed_tokens.weight has shape"),
    "more layers": (
        replace(CONFIG, num_hidden_layers=3, mlp_layer_types=("dense",) * 3, indexer_types=("full",) * 3),
        "model.layers.1.mlp.gate_proj.weight is missing",
    ),
    "fewer layers": (
        replace(CONFIG, num_hidden_layers=1, mlp_layer_types=("dense",), indexer_types=("full",)),
        "model.layers.1.input_layernorm.weight is not part of",
    ),
    "shared selection": (
        replace(CONFIG, indexer_types=("full", "shared")),
        "model.layers.1.self_attn.indexer.k_norm.weight is not part of",
    ),
    "more shared experts": (
        replace(CONFIG, n_shared_experts=2),
        "model.layers.1.mlp.shared_experts.gate_proj.weight has shape",
    ),
}


@pytest.mark.parametrize(("config", "message"), BAD_CONFIGS.values(), ids=BAD_CONFIGS.keys())
def test_config_of_another_model_is_refused(tmp_path, config, message):
    with pytest.raises(PredecodeError, match=message):
        export(CHECKPOINT, tmp_path, config)


def test_layers_out_of_range_are_refused(tmp_path):
    with pytest.raises(PredecodeError, match="the model has layers 0 to 1"):
        export(CHECKPOINT, tmp_path, layers=(2,))


def test_shard_that_cuts_a_block_is_refused(tmp_path):
    with pytest.raises(PredecodeError, match="tensor parallel size 4"):
        export(CHECKPOINT, tmp_path, shard=Shard(4, 0))
