"""The up-projection of MLA's latent, per head: rows that make keys (nope), then rows that make values.

It stays as the checkpoint has it, FP8 with one scale per 128 x 128 block of its flattened rows: a block may span two
heads. (SGLang quantises it a second time, per tensor, for aiter's
`batched_gemm_a8w8_a_per_token_group_prequant_w_per_batched_tensor_quant`.)
"""

import torch

from predecode.custom_kernels.layouts import GROUP, ROW_MAJOR, require_layout
from predecode.custom_kernels.quantize import dequantize_blocks
from predecode.custom_kernels.values import BlockScaledWeight

ROW_STEP = 16
"""Rows that a GPU kernel gives one scale: heads, and their parts, start at multiples of it."""


def kv_b_heads(weight: torch.Tensor, weight_scales: torch.Tensor) -> torch.Tensor:
    """float32 [h, nope + v, L] from values of that shape and scales over their flattened rows."""
    heads, rows, latent = weight.shape
    return dequantize_blocks(weight.reshape(heads * rows, latent), weight_scales).reshape(heads, rows, latent)


def require_kv_b(consumer: str, weight: BlockScaledWeight) -> tuple[int, int, int]:
    """(h, nope + v, L) of a row-major ``weight``; its scales must fit."""
    require_layout(consumer, "weight", weight.layout, ROW_MAJOR, "kv_b is stored unpacked")
    shape, given = list(weight.values.shape), list(weight.scales.shape)
    if len(shape) != 3 or given != [-(-shape[0] * shape[1] // GROUP), -(-shape[2] // GROUP)]:
        raise ValueError(
            f"{consumer}: weight values {shape}, scales {given}; expected [heads, nope + v, latent] and one scale per "
            f"{GROUP} x {GROUP} block of the flattened rows"
        )
    heads, rows, latent = shape
    return heads, rows, latent
