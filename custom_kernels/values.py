"""Tensors that know their layout. The model passes these between ops, so a mismatch is found while tracing."""

from dataclasses import dataclass

import torch

from predecode.custom_kernels.layouts import (
    GroupMajorScales,
    IndexerPage,
    RowMajor,
    RowMajorScales,
    Tiled16x16,
)


@dataclass(frozen=True, slots=True)
class QuantizedActivation:
    """Rows quantised in groups of 128 columns: ``x[t, k] = values[t, k] * scale(t, k // 128)``.

    ``values`` is [rows, columns] in an element format's dtype; ``scales`` float32, ordered as ``layout`` says.
    """

    values: torch.Tensor
    scales: torch.Tensor
    layout: RowMajorScales | GroupMajorScales


@dataclass(frozen=True, slots=True)
class BlockScaledWeight:
    """A linear weight [N, K] (or experts of them, [E, N, K]) with one float32 scale per 128 x 128 block.

    ``values`` is stored as ``layout`` says, ``scales`` is [ceil(N/128), ceil(K/128)] row-major (leading E for
    experts): ``w[n, k] = values(n, k) * scales[n // 128, k // 128]``.
    """

    values: torch.Tensor
    scales: torch.Tensor
    layout: RowMajor | Tiled16x16


@dataclass(frozen=True, slots=True)
class IndexerCache:
    """The indexer's paged key cache: int8 [pages, page bytes], each page laid out as ``page`` says."""

    data: torch.Tensor
    page: IndexerPage


@dataclass(frozen=True, slots=True)
class LatentCache:
    """The MLA cache: int8 [pages, 64 * (kv_lora_rank + rope dim) * itemsize].

    A token's latent (kv_lora_rank elements) and rotated key (rope dim) lie side by side, tokens in order, with
    no scale: element ``d`` of slot ``s`` is at ``(s * width + d) * itemsize`` of the flattened cache.
    """

    data: torch.Tensor


@dataclass(frozen=True, slots=True)
class AttentionParts:
    """Attention outputs over disjoint parts of the attended tokens, each with a softmax of its own.

    ``values`` [T, heads, parts, latent] in float16, which holds means of FP8 values to 11 bits (float32 where the
    format does not quantise); zeros for a part without tokens. ``log_sums`` float32 [T, heads, parts]: natural
    logarithm of the sum of the exponentials of a part's scores, -inf without tokens.
    """

    values: torch.Tensor
    log_sums: torch.Tensor
