"""The indexer's key before it is quantised: LayerNorm, rotary embedding, Hadamard rotation.

Source: SGLang's NSA indexer (`k_norm`, rotary embedding of the first dimensions, `rotate_activation`).
"""

import torch

from predecode.custom_kernels.hadamard import hadamard_rotate
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM
from predecode.custom_kernels.op import define_op
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rotate

INDEXER_ROPE_DIM = 64
"""The rotated dimensions come first in an indexer head."""


def reference(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    x = k.float()
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(variance + epsilon) * weight.float() + bias.float()
    return rope_and_hadamard(normed.to(k.dtype)[:, None], rope_table, positions, rope_layout)[:, 0]


def rope_and_hadamard(
    heads: torch.Tensor, rope_table: torch.Tensor, positions: torch.Tensor, rope_layout: str
) -> torch.Tensor:
    """``heads`` [T, heads, 128] rotated by position, then by the Hadamard matrix, rounded after each."""
    turned = rotate(heads.float(), rope_table, positions, rope_layout, first=0).to(heads.dtype)
    return hadamard_rotate(turned.float()).to(heads.dtype)


def _fake(k, weight, bias, epsilon, rope_table, positions, rope_layout):
    return torch.empty_like(k)


OP = define_op(
    "indexer_k_prepare(Tensor k, Tensor weight, Tensor bias, float epsilon, Tensor rope_table, "
    "Tensor positions, str rope_layout) -> Tensor",
    reference,
    _fake,
)


def indexer_k_prepare(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    """``k`` [T, 128] -> the same shape and dtype, rounded to that dtype after each of the three steps.

    ``weight`` and ``bias`` [128] are the LayerNorm's, ``rope_table`` float32 [max positions, 64],
    ``positions`` int64 [T], ``rope_layout`` "interleaved" or "halves".
    """
    rows = k.shape[0]
    require_rope_layout("indexer_k_prepare", rope_layout)
    require_rope_rows("indexer_k_prepare", rope_table, positions, rows, INDEXER_ROPE_DIM)
    if list(k.shape) != [rows, INDEXER_HEAD_DIM] or {weight.shape, bias.shape} != {(INDEXER_HEAD_DIM,)}:
        raise ValueError(
            f"indexer_k_prepare: k {list(k.shape)} with weight {list(weight.shape)} and bias {list(bias.shape)}; "
            f"expected [T, {INDEXER_HEAD_DIM}] and [{INDEXER_HEAD_DIM}] twice"
        )
    return torch.ops.predecode.indexer_k_prepare(k, weight, bias, epsilon, rope_table, positions, rope_layout)
