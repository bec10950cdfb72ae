"""The lightning indexer: a small attention of its own that chooses the tokens the layer attends to."""

import torch
from torch import nn

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.indexer_k_prepare_and_cache import indexer_k_prepare_and_cache
from predecode.custom_kernels.indexer_q_prepare import indexer_q_prepare
from predecode.custom_kernels.paged_mqa_logits import paged_mqa_logits
from predecode.custom_kernels.topk_slots import topk_slots
from predecode.custom_kernels.values import IndexerCache, QuantizedActivation
from predecode.export.config import ModelConfig
from predecode.export.model.parameters import FloatLinear, Linear, Weight, empty_parameter
from predecode.export.model.step_inputs import StepInputs

KEY_NORM_EPSILON = 1e-6
"""Of the keys' LayerNorm; the same constant in every released model, absent from their configs."""
KEY_SCALE_FORMAT = "ue8m0"
"""Key scales are powers of two."""


class LayerNorm(Weight):
    """Weight and bias of a LayerNorm over the last dimension."""

    def __init__(self, dim: int, element_format: ElementFormat):
        super().__init__(dim, element_format=element_format)
        self.bias = empty_parameter(dim, dtype=element_format.activation_dtype)


class Indexer(nn.Module):
    """The same on every rank: it is not split over tensor-parallel ranks."""

    def __init__(self, config: ModelConfig, element_format: ElementFormat):
        super().__init__()
        self.config = config
        self.element_format = element_format
        heads, dim = config.index_n_heads, config.index_head_dim
        self.wq_b = Linear(heads * dim, config.q_lora_rank, element_format)
        self.wk = Linear(dim, config.hidden_size, element_format)
        self.k_norm = LayerNorm(dim, element_format)
        self.weights_proj = FloatLinear(heads, config.hidden_size, element_format=element_format)

    def forward(
        self,
        x: QuantizedActivation,
        normed: torch.Tensor,
        query_latent: QuantizedActivation,
        cache: IndexerCache,
        step: StepInputs,
    ) -> tuple[torch.Tensor, IndexerCache]:
        """Write the rows' own keys to ``cache``, then select up to index_topk cached tokens per row.

        ``x`` [T, hidden] is the quantised twin of ``normed``. Returns slots int32 [T, index_topk] in
        ascending position, padded with -1, and the written cache.
        """
        rope_layout = self.config.indexer_rope_layout
        cache = indexer_k_prepare_and_cache(
            self.wk(x),
            self.k_norm.weight,
            self.k_norm.bias,
            KEY_NORM_EPSILON,
            step.rope_table,
            step.positions,
            cache,
            step.slot_mapping,
            rope_layout,
            KEY_SCALE_FORMAT,
            self.element_format,
        )
        query, weights = indexer_q_prepare(
            self.wq_b(query_latent),
            self.weights_proj(normed),
            step.rope_table,
            step.positions,
            rope_layout,
            self.element_format,
        )
        topk = self.config.index_topk
        logits = paged_mqa_logits(query, weights, cache, step.block_table, step.lengths, topk)
        return topk_slots(logits, step.lengths, step.block_table, topk), cache
