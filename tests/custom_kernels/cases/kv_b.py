"""kv_b weights for the cases of `q_absorb_rope_cat` and `value_up_group_quant`, and their rows written out."""

import numpy as np
import torch

from predecode.custom_kernels.formats import ElementFormat


def kv_b(generator: torch.Generator, heads: int, rows: int, latent: int, element_format: ElementFormat):
    """Values [heads, rows, latent] over the format's whole range and one scale per 128 x 128 block."""
    top = element_format.maximum if element_format.is_quantized else 1.0
    values = torch.randn(heads, rows, latent, generator=generator) * (top / 4)
    blocks = (-(-heads * rows // 128), -(-latent // 128))
    scales = torch.rand(*blocks, generator=generator) * (2.0 / top) + 0.01 / top
    return element_format.encode(values), scales


def dequantized_row(weight: torch.Tensor, scales: torch.Tensor, head: int, row: int) -> np.ndarray:
    """Row ``row`` of ``head`` in float64; column l of flattened row n has scale scales[n//128, l//128]."""
    flat = head * weight.shape[1] + row
    columns = np.arange(weight.shape[2])
    return weight[head, row].double().numpy() * scales.double().numpy()[flat // 128, columns // 128]
