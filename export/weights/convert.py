"""Weights from a checkpoint's dtype to an element format, one 128 x 128 scale block at a time."""

import torch
import torch.nn.functional as functional

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ElementFormat, group_scale
from predecode.custom_kernels.layouts import GROUP
from predecode.custom_kernels.quantize import dequantize_blocks

WEIGHT_SCALE_FLOOR = 1e-12
"""Smallest amax a block's scale is computed from, so that a block of zeros gets a usable scale."""


def convert_fp8(
    values: torch.Tensor, scales: torch.Tensor, element_format: ElementFormat
) -> tuple[torch.Tensor, torch.Tensor]:
    """E4M3FN ``values`` [N, K] and float32 ``scales`` [ceil(N/128), ceil(K/128)] in ``element_format``.

    FNUZ keeps the bytes and doubles the scales, with -0 (0x80, FNUZ's NaN) made +0
    (vLLM `normalize_e4m3fn_to_e4m3fnuz`). FLOAT32 gets dequantised values and scales of one.
    Raises `ValueError` where the weight holds NaN or a scale is not a finite number >= 0.
    """
    codes = values.view(torch.uint8)
    if ((codes & 0x7F) == 0x7F).any():
        raise ValueError("it holds NaN")
    if not (torch.isfinite(scales) & (scales >= 0)).all():
        raise ValueError("a scale is negative, infinite or NaN")
    if element_format == E4M3FN:
        return values, scales
    if element_format == E4M3FNUZ:
        return codes.masked_fill(codes == 0x80, 0).view(torch.float8_e4m3fnuz), scales * 2
    return dequantize_blocks(values, scales), torch.ones_like(scales)


def quantize_blocks(weight: torch.Tensor, element_format: ElementFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise floating-point ``weight`` [N, K] per block of 128 x 128.

    Returns values [N, K] in the format and float32 scales [ceil(N/128), ceil(K/128)]:
    ``scale = amax / maximum``, ``value = round(w / scale)`` (DeepSeek-V3 `weight_quant`). FLOAT32 keeps the
    values, with scales of one.
    Raises `ValueError` where the weight holds NaN or infinity.
    """
    weight = weight.float()
    rows, columns = weight.shape
    if not torch.isfinite(weight).all():
        raise ValueError("it holds NaN or infinity")
    padded = functional.pad(weight, (0, -columns % GROUP, 0, -rows % GROUP))
    blocks = padded.reshape(padded.shape[0] // GROUP, GROUP, padded.shape[1] // GROUP, GROUP)
    scales = group_scale(blocks.abs().amax((1, 3)), WEIGHT_SCALE_FLOOR, element_format.maximum)
    if not element_format.is_quantized:
        return weight, scales
    values = element_format.encode(blocks / scales[:, None, :, None]).reshape(padded.shape)
    return values[:rows, :columns], scales
