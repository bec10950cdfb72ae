"""Cases of `q_absorb_rope_cat`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.kv_b import kv_b
from tests.custom_kernels.cases.rotation import scattered_positions, table


def close(element_format: ElementFormat) -> Comparison:
    """The order of a float32 sum, and two roundings after it."""
    if element_format.is_quantized:
        return Comparison(steps=1, fraction=5e-3)
    return Comparison(relative=1e-5, absolute=1e-30)


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(17)
    compare = (close(element_format),)

    def case(label, rows, heads, nope, v, latent, rope=64, layout="interleaved", factor=1.0, scale_factor=1.0):
        weight, scales = kv_b(generator, heads, nope + v, latent, element_format)
        q = torch.randn(rows, heads * (nope + rope), generator=generator) * factor
        arguments = (
            q.to(element_format.activation_dtype),
            weight,
            scales * scale_factor,
            table(512, rope),
            scattered_positions(generator, rows, 512),
            layout,
        )
        return Case(label, arguments, compare)

    return [
        case("one row", 1, 4, 64, 64, 128),
        case("blocks that straddle heads", 5, 3, 96, 48, 256),
        case("a slice shorter than others", 2, 2, 80, 48, 64),
        case("16 nope dims, 128 rotated", 3, 2, 16, 16, 64, rope=128),
        case("halves", 5, 2, 64, 64, 128, layout="halves"),
        case("halves, 32 rotated", 3, 1, 32, 64, 64, rope=32, layout="halves"),
        case("16 rotated", 17, 1, 32, 64, 64, rope=16),
        case("63 rows", 63, 2, 64, 64, 64),
        case("65 rows", 65, 2, 64, 64, 128),
        # As many threads as a selection on NVIDIA.
        case("32 rows of 256 latent columns", 32, 2, 48, 48, 256),
        case("33 rows of 256 latent columns", 33, 2, 48, 48, 256),
        case("33 rows of 256 latent columns, halves, 128 rotated", 33, 1, 16, 16, 256, rope=128, layout="halves"),
        case("65 rows of 512 latent columns", 65, 2, 64, 64, 512),
        # No GPU kernel takes these two: their compiled reference is what runs there.
        case("72 latent columns", 3, 2, 40, 24, 72),
        case("72 latent columns, halves", 3, 2, 40, 24, 72, layout="halves"),
        case("zeros", 1, 2, 64, 64, 128, factor=0.0),
        case("saturating", 2, 2, 64, 64, 128, factor=1e4),
        case("huge", 2, 2, 64, 64, 128, factor=1e30),
        case("below the smallest FP8 value", 2, 2, 64, 64, 128, factor=1e-4),
        case("tiny scales", 2, 2, 64, 64, 128, factor=1e4, scale_factor=1e-4),
        case("GLM-5.1 rank", 4, 8, 192, 256, 512),
        case("DeepSeek-V3.2 rank", 2, 16, 128, 128, 512),
    ]
