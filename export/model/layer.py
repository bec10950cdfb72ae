"""One decoder layer in its two halves; after each, tensor-parallel ranks sum their outputs."""

from enum import Enum

import torch
from torch import nn

from predecode.custom_kernels.add_rms_norm_group_quant import add_rms_norm_group_quant
from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.rms_norm_group_quant import rms_norm_group_quant
from predecode.custom_kernels.values import IndexerCache, LatentCache
from predecode.export.config import ModelConfig
from predecode.export.model.attention import Attention
from predecode.export.model.indexer import Indexer
from predecode.export.model.mlp import DenseMlp
from predecode.export.model.moe import MixtureOfExperts
from predecode.export.model.parameters import Weight
from predecode.export.model.step_inputs import StepInputs
from predecode.export.shard import ShardSizes


class Half(Enum):
    """The halves of a layer."""

    ATTENTION = "attention"
    MLP = "mlp"


class Layer(nn.Module):
    """The given ``halves`` of layer ``index``, one rank's part.

    ``hidden`` and ``residual`` are [T, hidden_size] in the activation dtype: the stream is their sum.
    """

    def __init__(
        self,
        config: ModelConfig,
        index: int,
        sizes: ShardSizes,
        element_format: ElementFormat,
        halves: frozenset[Half],
    ):
        super().__init__()
        self.config = config
        self.element_format = element_format
        if Half.ATTENTION in halves:
            self.input_norm = Weight(config.hidden_size, element_format=element_format)
            self.attention = Attention(config, sizes.heads, element_format)
            self.indexer = Indexer(config, element_format) if config.has_indexer(index) else None
        if Half.MLP in halves:
            self.post_attention_norm = Weight(config.hidden_size, element_format=element_format)
            self.mlp = (
                MixtureOfExperts(config, sizes.moe_intermediate, element_format)
                if config.is_sparse(index)
                else DenseMlp(config.hidden_size, sizes.intermediate, element_format)
            )

    def attend(
        self,
        hidden: torch.Tensor,
        residual: torch.Tensor | None,
        selected_slots: torch.Tensor | None,
        indexer_cache: IndexerCache | None,
        latent_cache: LatentCache,
        step: StepInputs,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, IndexerCache | None, LatentCache]:
        """The attention half.

        ``residual`` is None at the start of the stream. A layer without an indexer takes ``selected_slots``
        from the last one that has one. Returns hidden (summed over this rank's heads), residual, the selected
        slots and the written caches.
        """
        normalize = self.input_norm.weight, self.config.rms_norm_eps, self.element_format
        if residual is None:
            x, normed = rms_norm_group_quant(hidden, *normalize)
            residual = hidden
        else:
            x, normed, residual = add_rms_norm_group_quant(hidden, residual, *normalize)
        query_latent, latent_cache = self.attention.latents(x, latent_cache, step)
        if self.indexer is not None:
            selected_slots, indexer_cache = self.indexer(x, normed, query_latent, indexer_cache, step)
        hidden = self.attention(query_latent, selected_slots, latent_cache, step)
        return hidden, residual, selected_slots, indexer_cache, latent_cache

    def transform(self, hidden: torch.Tensor, residual: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The MLP half: returns hidden (summed over this rank's columns) and residual."""
        x, normed, residual = add_rms_norm_group_quant(
            hidden, residual, self.post_attention_norm.weight, self.config.rms_norm_eps, self.element_format
        )
        return self.mlp(x, normed), residual
