"""Quantised rows and tiled block-scaled weights for the cases of the matrix ops."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import TILED_16X16
from tests.custom_kernels.cases.case import Comparison

NAN_CODES = {"e4m3fn": (0x7F, 0xFF), "e4m3fnuz": (0x80,)}


def elements(generator: torch.Generator, shape: tuple[int, ...], element_format: ElementFormat) -> torch.Tensor:
    """Every code but NaN equally likely, denormals and the largest values too; normal when float32."""
    if not element_format.is_quantized:
        return torch.randn(shape, generator=generator)
    codes = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    for nan in NAN_CODES[element_format.name]:
        codes[codes == nan] = 0
    return codes.view(element_format.dtype)


def scales(generator: torch.Generator, shape: tuple[int, ...]) -> torch.Tensor:
    """float32 in [0.001, 0.011), no two alike."""
    return torch.rand(shape, generator=generator) * 0.01 + 0.001


def quantized_rows(generator, rows: int, columns: int, element_format: ElementFormat):
    """Values [rows, columns] and group-major scales [columns / 128, rows]."""
    return elements(generator, (rows, columns), element_format), scales(generator, (columns // 128, rows))


def tiled_weight(generator, shape: tuple[int, ...], element_format: ElementFormat):
    """Values [..., N/16, K/16, 16, 16] and scales [..., ceil(N/128), K/128] for ``shape`` [..., N, K]."""
    *batch, n, k = shape
    values = TILED_16X16.pack(elements(generator, shape, element_format))
    return values, scales(generator, (*batch, -(-n // 128), k // 128))


def close(element_format: ElementFormat) -> Comparison:
    """One rounding to the activation dtype, and the order of the float32 sum."""
    return Comparison(relative=2**-7 if element_format.is_quantized else 1e-5, absolute=1e-30)
