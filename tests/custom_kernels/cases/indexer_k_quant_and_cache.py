"""Cases of `indexer_k_quant_and_cache`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import INDEXER_PAGES
from tests.custom_kernels.cases.activations import special_rows
from tests.custom_kernels.cases.case import EXACT, Case
from tests.custom_kernels.cases.rotation import random_slots


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(9)
    dtype = element_format.activation_dtype

    def case(label, slots, pages, k=None, scale_format="ue8m0", page_layout="preshuffled page"):
        slots = torch.as_tensor(slots)
        page_bytes = INDEXER_PAGES[page_layout].page_bytes(element_format.itemsize)
        cache = torch.randint(-128, 128, (pages, page_bytes), generator=generator, dtype=torch.int8)
        if k is None:
            k = torch.randn(len(slots), 128, generator=generator) * torch.exp2(
                torch.randint(-9, 10, (len(slots), 1), generator=generator).float()
            )
        arguments = (k.to(dtype), cache, slots, scale_format, page_layout, element_format.name)
        return Case(label, arguments, (EXACT,))

    special = torch.cat(list(special_rows(generator, 128, element_format).values()))
    powers = torch.exp2(torch.arange(-20.0, 12.0))[:, None] * element_format.indexer_query_maximum
    if not element_format.is_quantized:
        powers = torch.exp2(torch.arange(-20.0, 12.0))[:, None]
    exact_scales = powers * torch.linspace(-1, 1, 128)
    special_slots = random_slots(generator, len(special), 2)
    edges = [0, 15, 16, 17, 63, 64, 65, 127, 128, 191]
    result = [
        case("one row", [5], 1),
        case("one padding row", [-1], 2),
        case("all padding", [-1] * 5, 2),
        case("tile and page edges", edges, 3),
        case("padding first, last and between", [-1, 130, -1, -1, 0, 64, -1], 3),
        case("slot 0 beside padding", [-1, 0], 1),
        case("63 rows", random_slots(generator, 63, 5), 5),
        case("64 rows", random_slots(generator, 64, 1), 1),
        case("65 rows", random_slots(generator, 65, 7, padding=(3, 64)), 7),
        case("zeros, tiny, huge, outliers", special_slots, 2, special),
        case("scales that are powers of two", random_slots(generator, 32, 4), 4, exact_scales),
        case("GLM-5.1, 64 rows in 1024 pages", random_slots(generator, 64, 1024, padding=(7,)), 1024),
    ]
    for page_layout in INDEXER_PAGES:
        for scale_format in ("ue8m0", "float32"):
            label = f"{page_layout}, {scale_format} scales"
            slots = random_slots(generator, 9, 3, padding=(4,))
            result.append(case(label, slots, 3, scale_format=scale_format, page_layout=page_layout))
    return result
