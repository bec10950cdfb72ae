"""Cases of `latent_norms_and_cache`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.latent_norms_and_cache import reference
from tests.custom_kernels.cases.activations import poisoned_row, quantized, random_rows, special_rows
from tests.custom_kernels.cases.case import EXACT, Case, Comparison
from tests.custom_kernels.cases.rotation import random_slots, scattered_positions, table


def stored_keys(element_format: ElementFormat, cache: torch.Tensor, width: int, slots: torch.Tensor) -> Comparison:
    """A key's element may be one code off where the order of its norm's sum matters; other bytes must be equal.

    Codes are compared as bytes of the int8 cache: NaN, which has several codes, is left out.
    """
    if not element_format.is_quantized:
        return EXACT
    elements = cache.reshape(-1, width)
    not_a_number = elements.view(element_format.dtype).float().isnan()
    fraction = (1 + 5e-3 * int((slots >= 0).sum()) * width) / cache.numel()
    return Comparison(steps=1, fraction=fraction, region=~not_a_number.reshape(cache.shape))


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(3)

    def case(label, slots, query, latent, x=None, rope=64, epsilons=(1e-6, 1e-5), layout="interleaved", pages=2):
        slots = torch.as_tensor(slots)
        rows, width = len(slots), latent + rope
        x = random_rows(generator, (rows, query + width), element_format) if x is None else x
        weights = [(1 + 0.3 * torch.randn(n, generator=generator)).to(x.dtype) for n in (query, latent)]
        page_bytes = 64 * width * element_format.itemsize
        arguments = (
            x,
            *weights,
            table(512, rope),
            scattered_positions(generator, rows, 512),
            torch.randint(-128, 128, (pages, page_bytes), generator=generator, dtype=torch.int8),
            slots,
            *epsilons,
            layout,
            element_format.name,
        )
        values, _, cache = reference(*arguments)
        compare = quantized(element_format, False, values)
        return Case(label, arguments, (*compare, stored_keys(element_format, cache, width, slots)))

    result = [
        case("one row", [3], 128, 64, rope=16, pages=1),
        case("one padding row", [-1], 128, 64, pages=1),
        case("all padding", [-1] * 3, 128, 128),
        case("page edges and padding", [-1, 0, 63, 64, -1, 127, 128], 128, 64, pages=3),
        case("slot 0 beside padding", [0, -1], 128, 64, pages=1),
        case("halves", random_slots(generator, 5, 2, padding=(2,)), 128, 128, layout="halves"),
        case("halves, 32 rotated", random_slots(generator, 3, 1), 128, 64, rope=32, layout="halves"),
        case("128 rotated", [1, 2], 128, 64, rope=128),
        case("24 rotated, which no GPU kernel takes", [1, 70, 2], 128, 64, rope=24),
        case("latent wider than the query", [5, 6, 7], 128, 512),
        case("latent of 8 columns", [5, 9], 256, 8, rope=16),
        case("latent of 136 columns", [5, 9], 256, 136),
        case("63 rows", random_slots(generator, 63, 2), 128, 64),
        case("65 rows", random_slots(generator, 65, 4, padding=(0, 33)), 256, 64, pages=4),
        case("epsilons far apart", [8, 9], 256, 128, epsilons=(10.0, 1e-6)),
        case("query beyond one chunk", [8, 9], 2176, 64),
        case("NaN and infinity", [1, 70], 256, 192, poisoned_row(generator, 512, element_format)),
        case("GLM-5.1", [1000, -1, 70, 64], 2048, 512, pages=20),
        case("DeepSeek-V3.2", [100, 7], 1536, 512),
    ]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, [77], 256, 192, row))
    return result
