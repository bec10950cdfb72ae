"""Multi-head latent attention in absorbed form, over the slots that the indexer selected."""

import torch
from torch import nn

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.latent_norms_and_cache import latent_norms_and_cache
from predecode.custom_kernels.q_absorb_rope_cat import q_absorb_rope_cat
from predecode.custom_kernels.sparse_mla import sparse_mla
from predecode.custom_kernels.value_up_group_quant import value_up_group_quant
from predecode.custom_kernels.values import LatentCache, QuantizedActivation
from predecode.export.config import ModelConfig
from predecode.export.model.parameters import HeadWeights, Linear, Weight
from predecode.export.model.step_inputs import StepInputs

ROPE_LAYOUT = "interleaved"
"""Both models pair neighbouring dimensions here; the indexer has a layout of its own."""


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

    def latents(
        self, x: QuantizedActivation, cache: LatentCache, step: StepInputs
    ) -> tuple[QuantizedActivation, LatentCache]:
        """The query's latent [T, q_lora] of the layer's input [T, hidden], and ``cache`` with the rows' own tokens.

        The indexer reads the query's latent too.
        """
        return latent_norms_and_cache(
            self.qkv_a(x),
            self.query_norm.weight,
            self.latent_norm.weight,
            step.rope_table,
            step.positions,
            cache,
            step.slot_mapping,
            self.config.latent_norm_eps,
            self.config.latent_norm_eps,
            ROPE_LAYOUT,
            self.element_format,
        )

    def forward(
        self, query_latent: QuantizedActivation, selected_slots: torch.Tensor, cache: LatentCache, step: StepInputs
    ) -> torch.Tensor:
        """Attend over ``selected_slots`` int32 [T, topk] of ``cache``: the output [T, hidden]."""
        query = q_absorb_rope_cat(
            self.q_b(query_latent), self.kv_b.weight, step.rope_table, step.positions, ROPE_LAYOUT
        )
        parts = sparse_mla(query, cache, selected_slots, self.config.kv_lora_rank, self.config.softmax_scale)
        return self.o_proj(value_up_group_quant(parts, self.kv_b.weight, self.config.qk_nope_head_dim))
