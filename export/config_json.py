"""Reads config.json: the fields of a `ModelConfig`, or a refusal that names what is wrong."""

from collections.abc import Mapping
from typing import Any

from predecode.custom_kernels.layouts import GROUP
from predecode.export.rope_parameters import rope_parameters_from_json
from predecode.pipelines.errors import PredecodeError

DEFAULT_SKIP_OFFSET = 2
"""Of ``index_skip_topk_offset``: sharing starts after this many layers at the earliest."""

ARCHITECTURES = {"glm_moe_dsa": "GlmMoeDsaForCausalLM", "deepseek_v32": "DeepseekV32ForCausalLM"}

# Keys of config.json that would change the computation, with the only value that is implemented.
_ONLY_VALUES = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "rope_interleave": True,
}

_INTEGER_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "moe_intermediate_size",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "index_n_heads",
    "index_head_dim",
    "index_topk",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "n_group",
    "topk_group",
    "max_position_embeddings",
)


def config_fields(data: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `ModelConfig` in a parsed config.json.

    Raises `PredecodeError` naming the architecture, the missing field or the unsupported value.
    """
    model_type = _architecture(data)
    for key, only in _ONLY_VALUES.items():
        if data.get(key) not in (None, only):
            raise PredecodeError(f"config: {key} = {data[key]!r} is not supported, only {only!r}")
    _check_quantization(data.get("quantization_config"))
    layer_count = _integer(data, "num_hidden_layers")
    heads = _integer(data, "num_attention_heads")
    if data.get("num_key_value_heads") not in (None, heads):
        raise PredecodeError(
            f"config: num_key_value_heads = {data['num_key_value_heads']} is not supported: "
            f"MLA has as many as attention heads ({heads})"
        )
    epsilon = _number(data, "rms_norm_eps")
    return dict(
        model_type=model_type,
        **{name: _integer(data, name) for name in _INTEGER_FIELDS},
        num_hidden_layers=layer_count,
        num_attention_heads=heads,
        norm_topk_prob=_boolean(data, "norm_topk_prob"),
        routed_scaling_factor=_number(data, "routed_scaling_factor"),
        rms_norm_eps=epsilon,
        latent_norm_eps=_number(data, "latent_norm_eps") if "latent_norm_eps" in data else epsilon,
        rope_parameters=rope_parameters_from_json(data),
        indexer_rope_interleave=(
            _boolean(data, "indexer_rope_interleave")
            if "indexer_rope_interleave" in data
            else model_type == "glm_moe_dsa"
        ),
        mlp_layer_types=_mlp_layer_types(data, layer_count),
        indexer_types=_indexer_types(data, layer_count),
    )


def _architecture(data: Mapping[str, Any]) -> str:
    model_type = data.get("model_type")
    if model_type not in ARCHITECTURES:
        raise PredecodeError(
            f"config: model_type {model_type!r} is not supported, expected one of {', '.join(sorted(ARCHITECTURES))}"
        )
    expected = [ARCHITECTURES[model_type]]
    if data.get("architectures") not in (None, expected):
        raise PredecodeError(
            f"config: architectures = {data['architectures']!r} is not supported for {model_type}, only {expected}"
        )
    return model_type


def _check_quantization(quantization: Any) -> None:
    if quantization is None:
        return
    if not isinstance(quantization, Mapping):
        raise PredecodeError(f"config: quantization_config = {quantization!r}, expected an object")
    for key, only in (("quant_method", "fp8"), ("weight_block_size", [GROUP, GROUP])):
        if quantization.get(key) != only:
            raise PredecodeError(
                f"config: quantization_config.{key} = {quantization.get(key)!r} is not supported, only {only!r}"
            )
    if quantization.get("activation_scheme", "dynamic") != "dynamic":
        raise PredecodeError(
            f"config: quantization_config.activation_scheme = {quantization['activation_scheme']!r} "
            "is not supported, only 'dynamic'"
        )


def _field(data: Mapping[str, Any], name: str) -> Any:
    if data.get(name) is None:
        raise PredecodeError(f"config: field {name} is missing")
    return data[name]


def _integer(data: Mapping[str, Any], name: str) -> int:
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise PredecodeError(f"config: {name} = {value!r}, expected a positive whole number")
    return value


def _number(data: Mapping[str, Any], name: str) -> float:
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise PredecodeError(f"config: {name} = {value!r}, expected a positive number")
    return float(value)


def _boolean(data: Mapping[str, Any], name: str) -> bool:
    value = _field(data, name)
    if not isinstance(value, bool):
        raise PredecodeError(f"config: {name} = {value!r}, expected true or false")
    return value


def _whole_number(data: Mapping[str, Any], name: str) -> int:
    value = _field(data, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise PredecodeError(f"config: {name} = {value!r}, expected a whole number")
    return value


def _names(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    if not isinstance(data[key], list | tuple | str):
        raise PredecodeError(f"config: {key} = {data[key]!r}, expected a list with one name per layer")
    return tuple(data[key])


def _mlp_layer_types(data: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    if data.get("mlp_layer_types") is not None:
        return _names(data, "mlp_layer_types")
    dense = _whole_number(data, "first_k_dense_replace")
    return tuple("dense" if layer < dense else "sparse" for layer in range(layers))


def _indexer_types(data: Mapping[str, Any], layers: int) -> tuple[str, ...]:
    """GLM-5.2's per-layer choice: a list, a pattern of F and S, or a frequency and an offset."""
    if data.get("indexer_types") is not None:
        return _names(data, "indexer_types")
    if data.get("index_topk_pattern") is not None:
        letters = {"F": "full", "S": "shared"}
        return tuple(letters.get(letter, letter) for letter in _names(data, "index_topk_pattern"))
    if data.get("index_topk_freq") is None:
        return ("full",) * layers
    frequency = _integer(data, "index_topk_freq")
    given_offset = data.get("index_skip_topk_offset") is not None
    offset = _whole_number(data, "index_skip_topk_offset") if given_offset else DEFAULT_SKIP_OFFSET
    return tuple("full" if max(layer - offset + 1, 0) % frequency == 0 else "shared" for layer in range(layers))
