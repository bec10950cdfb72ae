"""Which tensors a checkpoint of a model holds: names, shapes and dtypes in Hugging Face's layout."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from predecode.custom_kernels.layouts import GROUP
from predecode.export.config import ModelConfig
from predecode.export.weights.source import TensorFacts, TensorSource
from predecode.pipelines.errors import PredecodeError

FLOAT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_KV_CACHE_SCALE = re.compile(r"model\.layers\.\d+\.self_attn\.(.*\.)?[kv]_scale")
_LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class CheckpointTensor:
    """One tensor that the model is made of.

    A ``block_scaled`` one is a linear weight that may be FP8 (E4M3FN), with its scales in `scale_name`; any
    may be bfloat16, float16 or float32.
    """

    shape: tuple[int, ...]
    block_scaled: bool = False


def scale_name(weight_name: str) -> str:
    """Name of the block scales of an FP8 weight; they multiply, in spite of the name."""
    return f"{weight_name}_scale_inv"


def scale_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Shape of the block scales of a weight [N, K]."""
    rows, columns = shape
    return -(-rows // GROUP), -(-columns // GROUP)


def layer_prefix(layer: int) -> str:
    """Beginning of the names of a layer's tensors."""
    return f"model.layers.{layer}."


def fused_experts(layer: int, projection: str) -> str:
    """Name of all experts' ``gate_up_proj`` or ``down_proj`` in one tensor, as transformers holds them."""
    return f"{layer_prefix(layer)}mlp.experts.{projection}"


def expected_tensors(config: ModelConfig, fused_layers: frozenset[int] = frozenset()) -> dict[str, CheckpointTensor]:
    """Every tensor of the model by name; ``fused_layers`` hold their experts in two fused tensors."""
    hidden = config.hidden_size
    expected = {
        "model.embed_tokens.weight": CheckpointTensor((config.vocab_size, hidden)),
        "model.norm.weight": CheckpointTensor((hidden,)),
        "lm_head.weight": CheckpointTensor((config.vocab_size, hidden)),
    }
    for layer in range(config.num_hidden_layers):
        prefix = layer_prefix(layer)
        expected |= _norms(config, prefix) | _attention(config, f"{prefix}self_attn.")
        if config.has_indexer(layer):
            expected |= _indexer(config, f"{prefix}self_attn.indexer.")
        if config.is_sparse(layer):
            expected |= _experts(config, layer, layer in fused_layers)
        else:
            expected |= _mlp(f"{prefix}mlp.", hidden, config.intermediate_size)
    return expected


def _norms(config: ModelConfig, prefix: str) -> dict[str, CheckpointTensor]:
    norm = CheckpointTensor((config.hidden_size,))
    return {f"{prefix}input_layernorm.weight": norm, f"{prefix}post_attention_layernorm.weight": norm}


def _attention(config: ModelConfig, prefix: str) -> dict[str, CheckpointTensor]:
    heads, hidden = config.num_attention_heads, config.hidden_size
    key_and_value = config.qk_nope_head_dim + config.v_head_dim
    linears = {
        "q_a_proj": (config.q_lora_rank, hidden),
        "q_b_proj": (heads * config.qk_head_dim, config.q_lora_rank),
        "kv_a_proj_with_mqa": (config.latent_dim, hidden),
        "kv_b_proj": (heads * key_and_value, config.kv_lora_rank),
        "o_proj": (hidden, heads * config.v_head_dim),
    }
    return _linears(prefix, linears) | {
        f"{prefix}q_a_layernorm.weight": CheckpointTensor((config.q_lora_rank,)),
        f"{prefix}kv_a_layernorm.weight": CheckpointTensor((config.kv_lora_rank,)),
    }


def _indexer(config: ModelConfig, prefix: str) -> dict[str, CheckpointTensor]:
    dim, hidden = config.index_head_dim, config.hidden_size
    linears = {"wq_b": (config.index_n_heads * dim, config.q_lora_rank), "wk": (dim, hidden)}
    return _linears(prefix, linears) | {
        f"{prefix}k_norm.weight": CheckpointTensor((dim,)),
        f"{prefix}k_norm.bias": CheckpointTensor((dim,)),
        f"{prefix}weights_proj.weight": CheckpointTensor((config.index_n_heads, hidden)),
    }


def _experts(config: ModelConfig, layer: int, fused: bool) -> dict[str, CheckpointTensor]:
    prefix = f"{layer_prefix(layer)}mlp."
    experts, hidden, inner = config.n_routed_experts, config.hidden_size, config.moe_intermediate_size
    tensors = {
        f"{prefix}gate.weight": CheckpointTensor((experts, hidden)),
        f"{prefix}gate.e_score_correction_bias": CheckpointTensor((experts,)),
        **_mlp(f"{prefix}shared_experts.", hidden, inner * config.n_shared_experts),
    }
    if fused:
        tensors[fused_experts(layer, "gate_up_proj")] = CheckpointTensor((experts, 2 * inner, hidden))
        tensors[fused_experts(layer, "down_proj")] = CheckpointTensor((experts, hidden, inner))
        return tensors
    for expert in range(experts):
        tensors |= _mlp(f"{prefix}experts.{expert}.", hidden, inner)
    return tensors


def _mlp(prefix: str, hidden: int, inner: int) -> dict[str, CheckpointTensor]:
    return _linears(prefix, {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)})


def _linears(prefix: str, shapes: Mapping[str, tuple[int, int]]) -> dict[str, CheckpointTensor]:
    return {f"{prefix}{name}.weight": CheckpointTensor(shape, True) for name, shape in shapes.items()}


def fused_layers(source: TensorSource, config: ModelConfig) -> frozenset[int]:
    """Layers whose experts ``source`` holds in fused tensors."""
    return frozenset(
        layer for layer in range(config.num_hidden_layers) if fused_experts(layer, "gate_up_proj") in source.tensors
    )


def check_checkpoint(source: TensorSource, config: ModelConfig, needed: Iterable[str]) -> None:
    """Refuse a checkpoint that does not hold exactly the model of ``config``.

    Every tensor present must belong to the model, with its shape and a supported dtype; those in ``needed``
    must be present. Unused on purpose: the layer of multi-token prediction, stored rotary frequencies, and
    key or value cache scales of one. Raises `PredecodeError` naming the first tensor that is wrong.
    """
    expected = expected_tensors(config, fused_layers(source, config))
    for name in needed:
        _require(source, name, expected[name].block_scaled)
    scales = {scale_name(name): name for name, tensor in expected.items() if tensor.block_scaled}
    for name, facts in source.tensors.items():
        if name in expected:
            _check_shape(source, name, expected[name].shape)
            dtypes = (torch.float8_e4m3fn, *FLOAT_DTYPES) if expected[name].block_scaled else FLOAT_DTYPES
            _check_dtype(source, name, dtypes)
        elif name in scales and scales[name] in source.tensors:
            _check_scale(source, name, scales[name])
        elif _KV_CACHE_SCALE.fullmatch(name):
            _check_kv_cache_scale(source, name, facts)
        elif not _is_unused(source, config, name):
            raise PredecodeError(
                f"{source.where}: tensor {name} is not part of this {config.model_type} model; "
                "does config.json belong to these weights?"
            )


def _require(source: TensorSource, name: str, block_scaled: bool) -> None:
    facts = source.tensors.get(name)
    if facts is None:
        raise PredecodeError(f"{source.where}: tensor {name} is missing")
    if block_scaled and facts.dtype == torch.float8_e4m3fn and scale_name(name) not in source.tensors:
        raise PredecodeError(f"{source.where}: tensor {scale_name(name)}, the scales of an FP8 weight, is missing")


def _check_shape(source: TensorSource, name: str, shape: tuple[int, ...]) -> None:
    given = source.tensors[name].shape
    if given != shape:
        raise PredecodeError(
            f"{source.where}: tensor {name} has shape {list(given)}, but config.json makes it {list(shape)}"
        )


def _check_dtype(source: TensorSource, name: str, allowed: tuple[torch.dtype, ...]) -> None:
    given = source.tensors[name].dtype
    if given not in allowed:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
        raise PredecodeError(
            f"{source.where}: tensor {name} has dtype {str(given).removeprefix('torch.')}, expected {names}"
        )


def _check_scale(source: TensorSource, name: str, weight: str) -> None:
    facts = source.tensors[weight]
    if facts.dtype != torch.float8_e4m3fn:
        raise PredecodeError(
            f"{source.where}: tensor {name} scales {weight}, which is "
            f"{str(facts.dtype).removeprefix('torch.')}, not FP8; remove one or convert the other"
        )
    _check_shape(source, name, scale_shape(facts.shape))
    _check_dtype(source, name, (torch.float32,))


def _check_kv_cache_scale(source: TensorSource, name: str, facts: TensorFacts) -> None:
    values = source.read(name, tuple(slice(0, size) for size in facts.shape)).double()
    if not (values == 1).all():
        raise PredecodeError(
            f"{source.where}: tensor {name} scales the cache by {values.flatten()[0].item():g}, but "
            "the caches here have no scale; only 1 is supported"
        )


def _is_unused(source: TensorSource, config: ModelConfig, name: str) -> bool:
    """True for rotary frequencies and the multi-token prediction layer, which is the one after the last."""
    if name.endswith(".rotary_emb.inv_freq"):
        return True
    match = _LAYER.match(name)
    prediction_layer = config.num_hidden_layers
    return (
        match is not None
        and int(match[1]) == prediction_layer
        and f"{layer_prefix(prediction_layer)}eh_proj.weight" in source.tensors
    )
