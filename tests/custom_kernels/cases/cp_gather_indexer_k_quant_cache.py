"""Cases of `cp_gather_indexer_k_quant_cache`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import INDEXER_PAGES
from tests.custom_kernels.cases.case import EXACT, Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(10)

    def case(label, lengths, pages, page_layout="preshuffled page", table=None, extra=0):
        page_bytes = INDEXER_PAGES[page_layout].page_bytes(element_format.itemsize)
        # Any bytes, NaN among them: they are moved, not computed with.
        cache = torch.randint(-128, 128, (pages, page_bytes), generator=generator, dtype=torch.int8)
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        if table is None:
            width = max(1, -(-max(lengths) // 64))
            table = torch.randint(0, pages, (len(lengths), width), generator=generator, dtype=torch.int32)
        total = int(ends[-1]) + extra
        arguments = (cache, table, ends, total, page_layout, element_format.name)
        return Case(label, arguments, (EXACT, EXACT))

    backwards = torch.arange(3, -1, -1, dtype=torch.int32)[None]
    result = [
        case("one token", [1], 1),
        case("63, 64 and 65 tokens", [63, 64, 65], 6),
        case("empty sequences", [0, 3, 0, 0, 70, 0], 4),
        case("no sequence with tokens", [0, 0], 2, extra=3),
        case("rows past the end", [5, 66], 3, extra=9),
        case("one page repeated", [200], 2, table=torch.ones(1, 4, dtype=torch.int32)),
        case("pages backwards", [250], 4, table=backwards),
        case("many sequences", [(7 * i) % 5 for i in range(40)], 9),
        case("GLM-5.1, 4 sequences", [700, 64, 1, 501], 600),
    ]
    return [*result, *(case(layout, [17, 100], 5, layout) for layout in INDEXER_PAGES)]
