"""kv_b weights for the cases of `absorb_query` and `value_up`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison

# (label, rows, heads, nope, rope, v, latent); the last is one rank of GLM-5.1.
SIZES = (
    ("one row", 1, 4, 64, 64, 64, 128),
    ("blocks that straddle heads", 5, 3, 96, 64, 48, 256),
    ("65 rows", 65, 2, 64, 64, 64, 128),
    ("GLM-5.1 rank", 2, 8, 192, 64, 256, 512),
)


def kv_b(generator: torch.Generator, heads: int, rows: int, latent: int, element_format: ElementFormat):
    """Values [heads, rows, latent] over the format's whole range and one scale per 128 x 128 block."""
    top = element_format.maximum if element_format.is_quantized else 1.0
    values = torch.randn(heads, rows, latent, generator=generator) * (top / 4)
    blocks = (-(-heads * rows // 128), -(-latent // 128))
    scales = torch.rand(*blocks, generator=generator) * (2.0 / top) + 0.01 / top
    return element_format.encode(values), scales


def close(element_format: ElementFormat) -> Comparison:
    """One rounding to the activation dtype, and the order of the float32 sum."""
    return Comparison(relative=2**-7 if element_format.is_quantized else 1e-5, absolute=1e-30)


def magnitudes(make_input, run_case) -> list[Case]:
    """Zeros, huge and tiny inputs of the smallest size."""
    return [
        run_case(label, make_input * factor)
        for label, factor in (("zeros", 0.0), ("huge", 1e4), ("tiny", 1e-6))
    ]
