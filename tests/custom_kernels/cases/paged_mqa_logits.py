"""Cases of `paged_mqa_logits`."""

from collections.abc import Sequence

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.block_scaled import elements
from tests.custom_kernels.cases.case import Case, Comparison

PAGE = 64


def random_pages(generator: torch.Generator, pages: int, element_format: ElementFormat) -> torch.Tensor:
    """int8 [pages, page bytes]: random keys, then 64 float32 scales per page."""
    keys = elements(generator, (pages, PAGE * 128), element_format).view(torch.int8).reshape(pages, -1)
    scales = torch.exp2(torch.randint(-8, 2, (pages, PAGE), generator=generator).float())
    return torch.cat((keys, scales.view(torch.int8)), 1)


def poisoned(
    cache: torch.Tensor, block_table: torch.Tensor, lengths: Sequence[int], element_format: ElementFormat
) -> torch.Tensor:
    """``cache`` with NaN in the scale of every token that no row reaches."""
    used = torch.zeros(len(cache) * PAGE, dtype=torch.bool)
    for table, length in zip(block_table.tolist(), lengths, strict=True):
        for position in range(length):
            used[table[position // PAGE] * PAGE + position % PAGE] = True
    key_bytes = PAGE * 128 * element_format.itemsize
    scales = cache[:, key_bytes:].contiguous().view(torch.float32)
    scales[~used.reshape(len(cache), PAGE)] = float("nan")
    return torch.cat((cache[:, :key_bytes], scales.view(torch.int8)), 1)


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(14)

    def case(label, lengths, heads, width, pages, factor=1.0, table=None, topk=0):
        rows = len(lengths)
        query = elements(generator, (rows, heads, 128), element_format)
        weights = torch.randn(rows, heads, generator=generator) * factor
        if table is None:
            table = torch.randint(0, pages, (rows, width), generator=generator, dtype=torch.int32)
        for row, length in enumerate(lengths):
            table[row, -(-length // PAGE) :] = (-1, pages + 7)[row % 2]  # never to be followed
        cache = poisoned(random_pages(generator, pages, element_format), table, lengths, element_format)
        lengths = torch.tensor(lengths, dtype=torch.int32)
        valid = torch.arange(width * PAGE)[None] < torch.where(lengths > topk, lengths, 0)[:, None]
        relative = 1e-4 if element_format.is_quantized else 1e-5
        compare = Comparison(relative=relative, absolute=1e-30, region=valid)
        return Case(label, (query, weights, cache, table, lengths, topk), (compare,))

    backwards = torch.arange(5, -1, -1, dtype=torch.int32)[None].repeat(2, 1)
    return [
        case("one row, one token", [1], 16, 1, 1),
        case("no tokens", [0, 0], 16, 2, 3),
        case("tile and page edges", [0, 1, 15, 16, 17, 63, 64, 65, 127, 128, 129], 32, 3, 20),
        case("64 heads", [100, 200], 64, 4, 9),
        case("one page repeated", [256], 16, 4, 2, table=torch.ones(1, 4, dtype=torch.int32)),
        case("pages backwards", [384, 301], 32, 6, 6, table=backwards),
        case("65 rows, one of them long", [(37 * row) % 193 for row in range(64)] + [2560], 16, 40, 60),
        case("zero weights", [70], 32, 2, 4, factor=0.0),
        case("huge weights", [70], 32, 2, 4, factor=1e20),
        case("tiny weights", [70], 32, 2, 4, factor=1e-20),
        case("rows of at most topk tokens", [64, 65, 0, 128, 66, 3], 16, 3, 9, topk=65),
        case("all rows of at most topk tokens", [64, 65, 3], 32, 2, 9, topk=65),
        case("three of 300 rows, each one token", [int(row in (1, 255, 299)) for row in range(300)], 16, 1, 4),
        case("200 rows, some workgroups get two", [(1, 65, 64, 66, 70)[row % 5] for row in range(200)], 16, 2, 9),
        case("48 heads, one row repeated", [129] * 5, 48, 3, 2),
        case("one row among many waves", [6016], 32, 94, 100, topk=2048),
        case("GLM-5.1, 2 rows of 2000 to 2500 tokens", [2500, 2000], 32, 40, 80),
    ]
