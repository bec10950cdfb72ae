"""All single ops by the kernels that are at hand."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch

from predecode.export.config import ModelConfig
from predecode.export.shard import shard_sizes
from predecode.pipelines.artifact import read_manifest
from tests.rivals.attention_cases import attention_case
from tests.rivals.gemm_cases import dense_cases, expert_cases
from tests.rivals.indexer_cases import logits_case, topk_case
from tests.rivals.inputs import CachePools, plain_caches
from tests.rivals.kernel_case import KernelCase
from tests.rivals.libraries import COMMON_LIBRARY, FLASH_MLA_LIBRARY, Libraries
from tests.rivals.parameters import ArtifactLayers, only_layer
from tests.rivals.torch_weights import LayerWeights, layer_weights

FAMILIES = ("DeepGEMM, experts", "DeepGEMM, dense", "DeepGEMM, scores", "FlashMLA", "SGLang, top-k")
"""Those that take most of a layer first: time may run out."""


class KernelInputs:
    """What the cases are made of: the artifact's steps, and its weights once they are asked for."""

    def __init__(self, artifact: Path, rows: Sequence[int], context: str, device: torch.device):
        manifest = read_manifest(artifact)
        pools = CachePools(manifest)
        self.artifact, self._device = ArtifactLayers.of(artifact, manifest), device
        self.steps = {count: pools.step_inputs(count, context, device) for count in rows}

    @cached_property
    def weights(self) -> list[LayerWeights]:
        """Of every layer."""
        segments = (self.artifact.load(layer, self._device) for layer in self.artifact.layers)
        with torch.no_grad():
            return [layer_weights(only_layer(segment), segment.rope_table) for segment in segments]


def cases_of(family: str, libraries: Libraries, inputs: KernelInputs) -> Iterator[KernelCase]:
    """The cases of one of `FAMILIES` for every row count; raises `RivalError` where a library is missing."""
    make = _families(libraries, inputs)[family]
    for rows in inputs.steps:
        yield from make(rows)


def _families(libraries: Libraries, inputs: KernelInputs) -> dict[str, Callable[[int], Iterator[KernelCase]]]:
    config: ModelConfig = inputs.artifact.config
    heads, topk = config.index_n_heads, config.index_topk
    attention_heads = shard_sizes(config, inputs.artifact.shard).heads

    def dense(rows: int) -> Iterator[KernelCase]:
        yield from dense_cases(libraries.deep_gemm(), inputs.weights, rows)

    def experts(rows: int) -> Iterator[KernelCase]:
        chosen, shared = config.num_experts_per_tok, config.n_shared_experts
        yield from expert_cases(libraries.deep_gemm(), inputs.weights, rows, chosen, shared)

    def logits(rows: int) -> Iterator[KernelCase]:
        step = inputs.steps[rows]
        yield logits_case(libraries.deep_gemm(), plain_caches(step), step, heads)

    def chosen_tokens(rows: int) -> Iterator[KernelCase]:
        libraries.load_ops(COMMON_LIBRARY)
        step = inputs.steps[rows]
        yield topk_case(plain_caches(step), step, heads, topk)

    def attention(rows: int) -> Iterator[KernelCase]:
        libraries.load_ops(FLASH_MLA_LIBRARY)
        step, latent = inputs.steps[rows], config.kv_lora_rank
        yield attention_case(plain_caches(step), step, attention_heads, latent, topk, config.softmax_scale)

    return {
        "DeepGEMM, experts": experts,
        "DeepGEMM, dense": dense,
        "DeepGEMM, scores": logits,
        "FlashMLA": attention,
        "SGLang, top-k": chosen_tokens,
    }
