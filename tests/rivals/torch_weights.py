"""Weights of a layer as torch code holds them: row-major, in FP8 with block scales or in bfloat16."""

from typing import NamedTuple

import torch

from predecode.custom_kernels.kv_b import kv_b_heads
from predecode.custom_kernels.layouts import GROUP, TILED_16X16
from predecode.custom_kernels.quantize import dequantize_blocks
from predecode.export.model.layer import Layer
from predecode.export.model.parameters import BlockScaled


class Fp8Weight(NamedTuple):
    """``values`` float8 [..., N, K], row-major, and a float32 scale per 128 x 128 block."""

    values: torch.Tensor
    scales: torch.Tensor


Matrix = Fp8Weight | torch.Tensor


class AttentionWeights(NamedTuple):
    """``key_up`` bfloat16 [heads, nope, latent] and ``value_up`` [heads, latent, v] are the halves of kv_b."""

    input_norm: torch.Tensor
    query_norm: torch.Tensor
    latent_norm: torch.Tensor
    qkv_a: Matrix
    q_b: Matrix
    key_up: torch.Tensor
    value_up: torch.Tensor
    o_proj: Matrix


class IndexerWeights(NamedTuple):
    """``gates`` is the model's weights_proj, bfloat16 [heads, hidden]."""

    wq_b: Matrix
    wk: Matrix
    norm_weight: torch.Tensor
    norm_bias: torch.Tensor
    gates: torch.Tensor


class ExpertsWeights(NamedTuple):
    """``router`` float32 [experts, hidden]; ``gate_up`` [E, 2I, hidden], ``down`` [E, hidden, I], shared ones last."""

    norm: torch.Tensor
    router: torch.Tensor
    correction_bias: torch.Tensor
    gate_up: Matrix
    down: Matrix


class LayerWeights(NamedTuple):
    """Everything of one layer; ``rope_table`` float32 [max context, rope], cosines then sines."""

    attention: AttentionWeights
    indexer: IndexerWeights
    experts: ExpertsWeights
    rope_table: torch.Tensor


def row_major(module: BlockScaled) -> Fp8Weight:
    """A tiled weight, unpacked into new memory."""
    return Fp8Weight(TILED_16X16.unpack(module.values).contiguous(), module.scales)


def to_bfloat16(weight: Fp8Weight) -> torch.Tensor:
    """Dequantised, expert by expert where there are several: float32 is only a passing stage."""
    if weight.values.dim() == 2:
        return dequantize_blocks(weight.values, weight.scales).bfloat16()
    experts = torch.empty(weight.values.shape, dtype=torch.bfloat16, device=weight.values.device)
    for expert in range(len(experts)):
        experts[expert] = dequantize_blocks(weight.values[expert], weight.scales[expert])
    return experts


def dense(module: BlockScaled) -> Matrix:
    """In FP8 where torch multiplies it block by block (on a GPU, whole blocks of four along K), else bfloat16."""
    weight = row_major(module)
    blocks = weight.values.shape[1] / GROUP
    return weight if weight.values.is_cuda and blocks % 4 == 0 else to_bfloat16(weight)


def layer_weights(layer: Layer, rope_table: torch.Tensor) -> LayerWeights:
    """Of ``layer``, which may be freed afterwards; experts in FP8."""
    attention, indexer, experts = layer.attention, layer.indexer, layer.mlp
    nope = layer.config.qk_nope_head_dim
    kv_b = kv_b_heads(attention.kv_b.values, attention.kv_b.scales).bfloat16()
    return LayerWeights(
        AttentionWeights(
            input_norm=layer.input_norm.weight,
            query_norm=attention.query_norm.weight,
            latent_norm=attention.latent_norm.weight,
            qkv_a=dense(attention.qkv_a),
            q_b=dense(attention.q_b),
            key_up=kv_b[:, :nope].contiguous(),
            value_up=kv_b[:, nope:].transpose(1, 2).contiguous(),
            o_proj=dense(attention.o_proj),
        ),
        IndexerWeights(
            wq_b=dense(indexer.wq_b),
            wk=dense(indexer.wk),
            norm_weight=indexer.k_norm.weight,
            norm_bias=indexer.k_norm.bias,
            gates=indexer.weights_proj.weight,
        ),
        ExpertsWeights(
            norm=layer.post_attention_norm.weight,
            router=experts.router.weight.float(),
            correction_bias=experts.router.correction_bias,
            gate_up=row_major(experts.experts.gate_up),
            down=row_major(experts.experts.down),
        ),
        rope_table,
    )


def with_bfloat16_experts(weights: LayerWeights) -> LayerWeights:
    """The same with dequantised experts, which take twice the memory."""
    experts = weights.experts
    dequantized = experts._replace(gate_up=to_bfloat16(experts.gate_up), down=to_bfloat16(experts.down))
    return weights._replace(experts=dequantized)
