"""Quantisation of one indexer head (128 elements share a scale), as its key cache and its query use it."""

import torch

from predecode.custom_kernels.formats import ElementFormat, group_scale

INDEXER_SCALE_FLOOR = 1e-4
"""Smallest amax a scale is computed from (aiter `indexer_k_quant_and_cache`, SGLang `act_quant`)."""

UE8M0 = "ue8m0"
FLOAT32_SCALE = "float32"
SCALE_FORMATS = (UE8M0, FLOAT32_SCALE)
"""A scale is a float32 in memory either way; "ue8m0" rounds it up to a power of two."""


def round_up_to_power_of_two(scale: torch.Tensor) -> torch.Tensor:
    """The least power of two not below each positive normal float32; infinity and NaN stay.

    Done on the exponent bits, hence exact. For the amax of bfloat16 inputs, `exp2f(ceilf(log2f(scale)))` with
    a correctly rounded log2f gives the same.
    """
    bits = (scale.view(torch.int32) + 0x7FFFFF) & 0x7F800000
    return torch.where(scale < float("inf"), bits.view(torch.float32), scale)


def quantize_head(
    x: torch.Tensor, maximum: float, scale_format: str, element_format: ElementFormat
) -> tuple[torch.Tensor, torch.Tensor]:
    """``x`` [..., 128] -> values [..., 128] in the format, float32 scales [...].

    ``scale = max(amax, 1e-4) / maximum``, rounded up to a power of two if ``scale_format`` is "ue8m0";
    ``value = round(clamp(x * (1 / scale)))``.
    """
    x = x.float()
    scale = group_scale(x.abs().amax(-1), INDEXER_SCALE_FLOOR, maximum)
    if scale_format == UE8M0:
        scale = round_up_to_power_of_two(scale)
    return element_format.encode(x * (1.0 / scale)[..., None]), scale
