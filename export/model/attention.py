"""Multi-head latent attention in absorbed form, over the slots that the indexer selected."""

from dataclasses import dataclass

import torch
from torch import nn

from predecode.custom_kernels.absorb_query import absorb_query
from predecode.custom_kernels.flatten_group_quant import flatten_group_quant
from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.latent_norms_group_quant import latent_norms_group_quant
from predecode.custom_kernels.qk_rope_cat_and_cache_mla import qk_rope_cat_and_cache_mla
from predecode.custom_kernels.sparse_mla import sparse_mla
from predecode.custom_kernels.value_up import value_up
from predecode.custom_kernels.values import LatentCache, QuantizedActivation
from predecode.export.config import ModelConfig
from predecode.export.model.parameters import HeadWeights, Linear, Weight
from predecode.export.model.step_inputs import StepInputs

ROPE_LAYOUT = "interleaved"
"""Both models pair neighbouring dimensions here; the indexer has a layout of its own."""


@dataclass(frozen=True, slots=True)
class Latents:
    """``qkv_a`` [T, q_lora + kv_lora + rope] and its normalised parts.

    ``query`` is quantised, ``key_value`` [T, kv_lora] is not.
    """

    qkv_a: torch.Tensor
    query: QuantizedActivation
    key_value: torch.Tensor


class Attention(nn.Module):
    """``heads`` heads of one rank; the result of `forward` is this rank's part of the sum over heads."""

    def __init__(self, config: ModelConfig, heads: int, element_format: ElementFormat):
        super().__init__()
        self.config = config
        self.element_format = element_format
        latent, nope, value = config.kv_lora_rank, config.qk_nope_head_dim, config.v_head_dim
        self.qkv_a = Linear(config.qkv_a_dim, config.hidden_size, element_format)
        self.query_norm = Weight(config.q_lora_rank, element_format=element_format)
        self.latent_norm = Weight(latent, element_format=element_format)
        self.q_b = Linear(heads * config.qk_head_dim, config.q_lora_rank, element_format)
        self.kv_b = HeadWeights(heads, nope + value, latent, element_format)
        self.o_proj = Linear(config.hidden_size, heads * value, element_format)

    def latents(self, x: QuantizedActivation) -> Latents:
        """Down-projections of the layer's input [T, hidden]; the indexer reads the query latent too."""
        qkv_a = self.qkv_a(x)
        query, key_value = latent_norms_group_quant(
            qkv_a,
            self.query_norm.weight,
            self.latent_norm.weight,
            self.config.latent_norm_eps,
            self.config.latent_norm_eps,
            self.element_format,
        )
        return Latents(qkv_a, query, key_value)

    def forward(
        self, latents: Latents, selected_slots: torch.Tensor, cache: LatentCache, step: StepInputs
    ) -> tuple[torch.Tensor, LatentCache]:
        """Write the rows' own tokens to ``cache``, then attend over ``selected_slots`` int32 [T, topk].

        Returns the output [T, hidden] and the written cache.
        """
        q = self.q_b(latents.query)
        absorbed = absorb_query(q, self.kv_b.weight, self.config.qk_rope_head_dim)
        query, cache = qk_rope_cat_and_cache_mla(
            q,
            absorbed,
            latents.key_value,
            latents.qkv_a,
            step.rope_table,
            step.positions,
            cache,
            step.slot_mapping,
            ROPE_LAYOUT,
            self.element_format,
        )
        attended = sparse_mla(
            query, cache, selected_slots, self.config.kv_lora_rank, self.config.softmax_scale
        )
        values = value_up(attended, self.kv_b.weight, self.config.qk_nope_head_dim)
        return self.o_proj(flatten_group_quant(values, self.element_format)), cache
