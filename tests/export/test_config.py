"""Configs: both spellings, every refusal by name, shards."""

import dataclasses
import json

import pytest
import torch
from transformers import DeepseekV32Config, GlmMoeDsaConfig
from transformers.models.deepseek_v32.modeling_deepseek_v32 import DeepseekV32RotaryEmbedding
from transformers.models.glm_moe_dsa.modeling_glm_moe_dsa import GlmMoeDsaRotaryEmbedding

from predecode.export.config import ModelConfig
from predecode.export.presets import DEEPSEEK_V3_2, GLM_5_1, PRESETS, TINY, TINY_DEEPSEEK, preset
from predecode.export.rope_table import rope_table
from predecode.export.shard import Shard, ShardSizes, shard_sizes
from predecode.pipelines.errors import PredecodeError

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e4,
    "factor": 40,
    "original_max_position_embeddings": 4096,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
}


def glm_json(**changes) -> dict:
    """config.json of a true GLM-5.1, as transformers writes it."""
    config = GlmMoeDsaConfig(rope_parameters={"rope_type": "default", "rope_theta": 1e6})
    return json.loads(config.to_json_string(use_diff=False)) | changes


def without(data: dict, key: str) -> dict:
    return {name: value for name, value in data.items() if name != key}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_json(name):
    config = preset(name)
    assert ModelConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_presets_are_the_true_models():
    assert ModelConfig.from_json(glm_json()) == GLM_5_1
    deepseek = DeepseekV32Config(rope_parameters=YARN)
    assert ModelConfig.from_json(json.loads(deepseek.to_json_string(use_diff=False))) == DEEPSEEK_V3_2


def test_older_rope_spelling_and_unknown_keys():
    data = without(DEEPSEEK_V3_2.to_json(), "rope_parameters")
    data = without(data, "mlp_layer_types") | {"first_k_dense_replace": 3, "ep_size": 1}
    scaling = {("type" if k == "rope_type" else k): v for k, v in YARN.items() if k != "rope_theta"}
    assert ModelConfig.from_json(data | {"rope_theta": 10000, "rope_scaling": scaling}) == DEEPSEEK_V3_2


def test_softmax_scale():
    assert GLM_5_1.softmax_scale == 1 / 16
    assert DEEPSEEK_V3_2.softmax_scale == pytest.approx(0.13523, rel=1e-4)


def test_shared_top_k_layers_in_every_spelling():
    data = without(glm_json(num_hidden_layers=7, mlp_layer_types=["dense"] * 7), "indexer_types")
    expected = ("full", "full", "full", "shared", "shared", "shared", "full")
    assert ModelConfig.from_json(data | {"index_topk_freq": 4, "index_skip_topk_offset": 3}).indexer_types == expected
    assert ModelConfig.from_json(data | {"index_topk_pattern": "FFFSSSF"}).indexer_types == expected
    assert ModelConfig.from_json(data | {"indexer_types": list(expected)}).indexer_types == expected
    assert ModelConfig.from_json(data).indexer_types == ("full",) * 7


REFUSALS = {
    "another architecture": ({"model_type": "llama"}, "model_type 'llama'"),
    "no architecture": ({"model_type": None}, "model_type None"),
    "architecture of the other model": (
        {"architectures": ["DeepseekV32ForCausalLM"]},
        "DeepseekV32ForCausalLM",
    ),
    "missing field": ({"kv_lora_rank": None}, "field kv_lora_rank is missing"),
    "text for a number": ({"hidden_size": "6144"}, "hidden_size = '6144'"),
    "negative size": ({"index_topk": -1}, "index_topk = -1"),
    "fraction": ({"q_lora_rank": 2048.5}, "q_lora_rank = 2048.5"),
    "true for a number": ({"n_group": True}, "n_group = True"),
    "zero epsilon": ({"rms_norm_eps": 0}, "rms_norm_eps = 0"),
    "another activation": ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
    "biases": ({"attention_bias": True}, "attention_bias = True"),
    "tied embeddings": ({"tie_word_embeddings": True}, "tie_word_embeddings"),
    "softmax router": ({"scoring_func": "softmax"}, "scoring_func = 'softmax'"),
    "halves in the main attention": ({"rope_interleave": False}, "rope_interleave = False"),
    "grouped key heads": ({"num_key_value_heads": 8}, "num_key_value_heads = 8"),
    "another rope": ({"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}}, "rope_type 'linear'"),
    "no theta": ({"rope_parameters": {"rope_type": "default"}}, "rope_theta is missing"),
    "partial rotary": (
        {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor",
    ),
    "yarn without factor": ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn needs"),
    "another quantisation": ({"quantization_config": {"quant_method": "awq"}}, "quant_method = 'awq'"),
    "other blocks": (
        {"quantization_config": {"quant_method": "fp8", "weight_block_size": [64, 64]}},
        r"weight_block_size = \[64, 64\]",
    ),
    "static activations": (
        {
            "quantization_config": {
                "quant_method": "fp8",
                "weight_block_size": [128, 128],
                "activation_scheme": "static",
            }
        },
        "activation_scheme = 'static'",
    ),
    "quantisation as text": ({"quantization_config": "fp8"}, "quantization_config = 'fp8'"),
    "rope as text": ({"rope_parameters": "yarn"}, "rope_parameters = 'yarn'"),
    "layer types as a number": ({"indexer_types": 78}, "indexer_types = 78"),
    "negative dense layers": (
        {"mlp_layer_types": None, "first_k_dense_replace": -1},
        "first_k_dense_replace = -1",
    ),
    "rope dim": ({"qk_rope_head_dim": 32}, "qk_rope_head_dim = 32"),
    "index head dim": ({"index_head_dim": 64}, "index_head_dim = 64"),
    "value heads not in groups": ({"v_head_dim": 64}, "v_head_dim = 64"),
    "hidden size not in groups": ({"hidden_size": 6200}, "hidden_size = 6200"),
    "layer types too short": ({"mlp_layer_types": ["dense"]}, "names 1 layers"),
    "unknown layer type": ({"mlp_layer_types": ["dense"] * 77 + ["moe"]}, "'moe'"),
    "unknown indexer type": ({"indexer_types": ["full"] * 77 + ["half"]}, "'half'"),
    "first layer shares": ({"indexer_types": ["shared"] * 78}, r"indexer_types\[0\]"),
    "groups that do not divide": ({"n_group": 7}, "n_group = 7"),
    "one expert per group": ({"n_group": 256}, "fewer than two"),
    "more groups than there are": ({"topk_group": 2}, "topk_group = 2"),
    "more experts than reachable": ({"n_group": 64, "topk_group": 1}, "num_experts_per_tok = 8"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_the_field(name):
    changes, message = REFUSALS[name]
    with pytest.raises(PredecodeError, match=message) as refused:
        ModelConfig.from_json(glm_json(**changes))
    assert "\n" not in str(refused.value)


def test_folders(tmp_path):
    with pytest.raises(PredecodeError, match=r"no config\.json"):
        ModelConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(PredecodeError, match="cannot be read"):
        ModelConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(PredecodeError, match="expected an object"):
        ModelConfig.from_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(TINY.to_json()))
    assert ModelConfig.from_folder(tmp_path) == TINY


def test_unknown_preset():
    with pytest.raises(PredecodeError, match=r"unknown preset 'glm-6'.*glm-5\.1"):
        preset("glm-6")


@pytest.mark.parametrize("layers", [(), (3, 0), (0, 0), (78,), (-1,)])
def test_layer_choices(layers):
    with pytest.raises(PredecodeError, match="layers"):
        GLM_5_1.require_layers(layers)
    GLM_5_1.require_layers((0, 3, 77))


def test_shards_of_the_true_models():
    assert shard_sizes(GLM_5_1, Shard(8, 7)) == ShardSizes(8, 1536, 256, 19360)
    assert shard_sizes(DEEPSEEK_V3_2, Shard(8, 0)) == ShardSizes(16, 2304, 256, 16160)
    assert shard_sizes(TINY, Shard(2, 1)) == ShardSizes(2, 128, 128, 256)
    assert Shard(4, 1).part(8) == slice(2, 4)


@pytest.mark.parametrize(
    ("config", "ranks", "message"),
    [
        (GLM_5_1, 3, "num_attention_heads = 64"),
        (GLM_5_1, 32, "moe_intermediate_size = 2048"),
        (TINY, 4, r"v_head_dim\) = 768"),
        (dataclasses.replace(TINY, vocab_size=511), 2, "vocab_size = 511"),
        (dataclasses.replace(TINY_DEEPSEEK, moe_intermediate_size=128), 2, "moe_intermediate_size = 128"),
    ],
)
def test_impossible_shards(config, ranks, message):
    with pytest.raises(PredecodeError, match=message):
        shard_sizes(config, Shard(ranks, 0))


def test_impossible_ranks():
    with pytest.raises(PredecodeError, match="rank 2"):
        Shard(2, 2)
    with pytest.raises(PredecodeError, match="size 0"):
        Shard(0, 0)


@pytest.mark.parametrize(
    ("ours", "theirs", "rotary"),
    [
        (
            GLM_5_1,
            GlmMoeDsaConfig(rope_parameters={"rope_type": "default", "rope_theta": 1e6}),
            GlmMoeDsaRotaryEmbedding,
        ),
        (DEEPSEEK_V3_2, DeepseekV32Config(rope_parameters=dict(YARN)), DeepseekV32RotaryEmbedding),
        (
            TINY_DEEPSEEK,
            DeepseekV32Config(
                rope_parameters=YARN | {"factor": 8.0, "original_max_position_embeddings": 128},
                max_position_embeddings=1024,
            ),
            DeepseekV32RotaryEmbedding,
        ),
    ],
    ids=["default", "yarn", "short yarn"],
)
def test_rope_table_equals_transformers(ours, theirs, rotary):
    table = rope_table(ours.rope_parameters, ours.qk_rope_head_dim, 1024)
    cosines, sines = rotary(theirs)(torch.zeros(1), torch.arange(1024)[None])
    expected = torch.cat([cosines[0, :, :32], sines[0, :, :32]], -1)
    torch.testing.assert_close(table, expected, rtol=0, atol=1e-6)
    plain = dataclasses.replace(ours.rope_parameters, rope_theta=ours.rope_parameters.rope_theta * 2)
    assert (rope_table(plain, 64, 1024) - expected).abs().max() > 0.1
