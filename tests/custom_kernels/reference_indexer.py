"""Quantisation of an indexer head and its place in a page, written from their definitions."""

import math

import numpy as np
import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.reference_quantize import encode


def quantize_head(
    head: np.ndarray, maximum: float, scale_format: str, element_format: ElementFormat
) -> tuple[torch.Tensor, np.float32]:
    """Codes [128] and scale of a float32 ``head``, all arithmetic in float32."""
    scale = np.float32(1)
    if element_format.is_quantized:
        scale = max(np.abs(head).max(), np.float32(1e-4)) / np.float32(maximum)
        if scale_format == "ue8m0":
            mantissa, exponent = math.frexp(scale)  # mantissa in [0.5, 1)
            scale = np.float32(2.0 ** (exponent - 1 if mantissa == 0.5 else exponent))
    return encode(head * (np.float32(1) / scale), element_format), np.float32(scale)


def key_offset(token: int, dim: int, page_layout: str) -> int:
    """Element of a page's key region: token rows, or tiles of 16 tokens x 16 dims along the dims first."""
    if page_layout == "plain page":
        return token * 128 + dim
    return token // 16 * 2048 + dim // 16 * 256 + token % 16 * 16 + dim % 16


def scale_bytes(token: int, itemsize: int) -> slice:
    """Bytes of a token's scale in its page: after all keys."""
    first = 64 * 128 * itemsize + 4 * token
    return slice(first, first + 4)
