"""Cases of `indexer_k_prepare_and_cache`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import INDEXER_PAGES, IndexerPage
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.rotation import random_slots, scattered_positions, table


def stored_bytes(
    cache: torch.Tensor, slots: torch.Tensor, page: IndexerPage, size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Booleans, shaped as ``cache``: where the keys of ``size`` bytes an element, and the scales, of ``slots`` lie."""
    keys, scales = (torch.zeros(cache.shape, dtype=torch.bool) for _ in range(2))
    for slot in slots[slots >= 0].tolist():
        for dim in range(128):
            first = page.key_offset(slot % 64, dim, size)
            keys[slot // 64, first : first + size] = True
        first = page.scale_offset(slot % 64, size)
        scales[slot // 64, first : first + 4] = True
    return keys, scales


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(8)
    dtype = element_format.activation_dtype

    def case(
        label,
        slots,
        pages,
        rope="interleaved",
        factor=1.0,
        offset=0.0,
        limit=512,
        scale_format="ue8m0",
        page_layout="preshuffled page",
    ):
        slots = torch.as_tensor(slots)
        rows = len(slots)
        page_bytes = INDEXER_PAGES[page_layout].page_bytes(element_format.itemsize)
        cache = torch.randint(-128, 128, (pages, page_bytes), generator=generator, dtype=torch.int8)
        arguments = (
            (torch.randn(rows, 128, generator=generator) * factor + offset).to(dtype),
            torch.randn(128, generator=generator).to(dtype),
            torch.randn(128, generator=generator).to(dtype),
            1e-6,
            table(limit),
            scattered_positions(generator, rows, limit),
            cache,
            slots,
            rope,
            scale_format,
            page_layout,
            element_format.name,
        )
        keys, scales = stored_bytes(cache, slots, INDEXER_PAGES[page_layout], element_format.itemsize)
        if not element_format.is_quantized:
            return Case(label, arguments, (Comparison(exact=True, region=~keys),))
        # The order of the norm's sums may turn a rounding, which moves a few of the row's codes, most of them by one,
        # and a scale that is not rounded up to a power of two. Nothing else may differ.
        near = Comparison(steps=32, fraction=2e-2 * float(keys.float().mean()), region=keys)
        rest = ~keys if scale_format == "ue8m0" else ~(keys | scales)
        return Case(label, arguments, ((near, Comparison(exact=True, region=rest)),))

    edges = [0, 15, 16, 17, 63, 64, 65, 127, 128, 191]
    result = [
        case("one row", [5], 1),
        case("one padding row", [-1], 2),
        case("all padding", [-1] * 5, 2),
        case("tile and page edges", edges, 3),
        case("padding first, last and between", [-1, 130, -1, -1, 0, 64, -1], 3),
        case("slot 0 beside padding", [-1, 0], 1),
        case("DeepSeek-V3.2", random_slots(generator, 4, 3), 3, rope="halves"),
        case("17 rows", random_slots(generator, 17, 2), 2),
        case("63 rows, halves", random_slots(generator, 63, 5), 5, rope="halves"),
        case("65 rows", random_slots(generator, 65, 7, padding=(3, 64)), 7),
        case("zeros", [7, 70], 2, factor=0.0),
        case("a constant row", [7, 70], 2, factor=0.0, offset=3.0),
        case("far from zero", [7, 70, 71], 2, offset=40.0),
        case("tiny", [7, 70], 2, factor=1e-10),
        case("huge", [7, 70], 2, factor=1e12),
        case("GLM-5.1, 64 rows in 1024 pages", random_slots(generator, 64, 1024, padding=(7,)), 1024, limit=4096),
    ]
    for page_layout in INDEXER_PAGES:
        for scale_format in ("ue8m0", "float32"):
            label = f"{page_layout}, {scale_format} scales"
            slots = random_slots(generator, 9, 3, padding=(4,))
            result.append(case(label, slots, 3, scale_format=scale_format, page_layout=page_layout))
    return result
