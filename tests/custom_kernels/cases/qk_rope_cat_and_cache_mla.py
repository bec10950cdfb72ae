"""Cases of `qk_rope_cat_and_cache_mla`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import EXACT, Case, Comparison
from tests.custom_kernels.cases.rotation import random_slots, scattered_positions, table


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(12)
    # Without rounding to FP8, the last bit of a rotation may be seen.
    q_rule = EXACT if element_format.is_quantized else Comparison(relative=1e-6)

    def case(
        label,
        slots,
        pages,
        heads=2,
        nope=64,
        latent=128,
        rope=64,
        q_lora=64,
        layout="interleaved",
        factor=1.0,
    ):
        slots = torch.as_tensor(slots)
        rows = len(slots)

        def activation(*shape):
            return (torch.randn(shape, generator=generator) * factor).to(element_format.activation_dtype)

        page_bytes = 64 * (latent + rope) * element_format.itemsize
        arguments = (
            activation(rows, heads * (nope + rope)),
            activation(rows, heads, latent),
            activation(rows, latent),
            activation(rows, q_lora + latent + rope),
            table(512, rope),
            scattered_positions(generator, rows, 512),
            torch.randint(-128, 128, (pages, page_bytes), generator=generator, dtype=torch.int8),
            slots,
            layout,
            element_format.name,
        )
        return Case(label, arguments, (q_rule, EXACT))

    return [
        case("one row", [3], 1),
        case("one padding row", [-1], 1),
        case("all padding", [-1] * 3, 2),
        case("page edges and padding", [-1, 0, 63, 64, -1, 127, 128], 3),
        case("slot 0 beside padding", [0, -1], 1),
        case("halves", random_slots(generator, 5, 2, padding=(2,)), 2, layout="halves"),
        case("halves, 32 rotated", random_slots(generator, 3, 1), 1, rope=32, layout="halves"),
        case("one head, no nope", [9, 8], 1, heads=1, nope=0),
        case("63 rows", random_slots(generator, 63, 2), 2),
        case("65 rows", random_slots(generator, 65, 4, padding=(0, 33)), 4),
        case("saturating", [1, 2], 1, factor=1e4),
        case("huge", [1, 2], 1, factor=1e30),
        case("below the smallest FP8 value", [1, 2], 1, factor=1e-4),
        case("around the smallest normal FP8 value", [1, 2], 1, factor=0.01),
        case("zeros", [1, 2], 1, factor=0.0),
        case("GLM-5.1", [1000, -1, 70, 64], 20, heads=8, nope=192, latent=512, q_lora=2048),
        case("DeepSeek-V3.2", [100, 7], 2, heads=16, nope=128, latent=512, q_lora=1536),
    ]
