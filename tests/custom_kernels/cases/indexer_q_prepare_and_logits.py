"""Cases of `indexer_q_prepare_and_logits`."""

from collections.abc import Sequence

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.paged_mqa_logits import PAGE, poisoned, random_pages
from tests.custom_kernels.cases.rotation import scattered_positions, table

POSITIONS = 512


def described_case(
    element_format: ElementFormat,
    generator: torch.Generator,
    label: str,
    lengths: Sequence[int],
    heads: int = 32,
    layout: str = "interleaved",
    pages: int = 12,
    width: int | None = None,
    block_table: torch.Tensor | None = None,
    topk: int = 0,
    query_factor: float = 1.0,
    gate_factor: float = 1.0,
) -> Case:
    """Rows of ``lengths``, whose pages are drawn from ``pages``; their positions tell nothing of the lengths."""
    rows, width = len(lengths), width or max(1, *(-(-length // PAGE) for length in lengths))
    q = (torch.randn(rows, heads * 128, generator=generator) * query_factor).to(element_format.activation_dtype)
    gates = torch.randn(rows, heads, generator=generator) * gate_factor
    positions = scattered_positions(generator, rows, POSITIONS).flip(0)
    if block_table is None:
        block_table = torch.randint(0, pages, (rows, width), generator=generator, dtype=torch.int32)
    for row, length in enumerate(lengths):
        block_table[row, -(-length // PAGE) :] = (-1, pages + 7)[row % 2]  # never to be followed
    cache = poisoned(random_pages(generator, pages, element_format), block_table, lengths, element_format)
    lengths = torch.tensor(lengths, dtype=torch.int32)
    valid = torch.arange(width * PAGE)[None] < torch.where(lengths > topk, lengths, 0)[:, None]
    query = (q, gates, table(POSITIONS), positions, layout, element_format.name)
    compare = Comparison(relative=1e-4, absolute=1e-30, region=valid)
    return Case(label, (*query, cache, block_table, lengths, topk), (compare,))


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(23)

    def case(label, lengths, **options):
        return described_case(element_format, generator, label, lengths, **options)

    backwards = torch.arange(5, -1, -1, dtype=torch.int32)[None].repeat(3, 1)
    return [
        case("GLM-5.1, one row", [130]),
        case("GLM-5.1, 4 rows", [1000, 700, 64, 65], pages=30),
        case("8 rows, page edges, halves", [63, 64, 65, 127, 128, 129, 1, 0], layout="halves"),
        case("8 rows, page edges", [0, 63, 64, 65, 15, 16, 17, 191]),
        case("DeepSeek-V3.2, 3 rows", [100, 513, 64], heads=64, layout="halves"),
        case("64 heads, 8 rows", [65, 64, 63, 200, 1, 130, 30, 66], heads=64),
        case("pages backwards, halves", [384, 301, 65], block_table=backwards.clone(), layout="halves"),
        case("one page repeated", [256, 200, 129], block_table=torch.ones(3, 4, dtype=torch.int32), pages=2),
        case("rows of at most topk tokens", [64, 65, 0, 128, 66, 3, 65, 190], topk=65),
        case("rows of at most topk tokens, halves", [300, 65, 190, 66], topk=66, layout="halves"),
        case("all rows of at most topk tokens", [64, 65, 3], topk=65),
        case("no tokens", [0, 0, 0, 0], layout="halves"),
        case("a long row behind short ones", [65, 1, 30, 2500], pages=40),
        case("a long row before short ones, halves", [2500, 65, 1, 30], pages=40, layout="halves"),
        case("some workgroups get several rows", [65, 1, 79000], heads=16),
        case("48 heads, 65 rows", [(37 * row) % 193 for row in range(65)], heads=48, layout="halves"),
        case("200 rows, some workgroups get two", [(1, 65, 64, 66, 70)[row % 5] for row in range(200)], heads=16),
        case("zero query", [70, 64, 1], query_factor=0.0),
        case("below the scale's floor", [70, 64, 1], query_factor=1e-6, layout="halves"),
        case("huge query", [70, 64, 1], query_factor=1e20),
        case("zero gates", [70, 64, 1], gate_factor=0.0),
        case("huge gates", [70, 64, 1], gate_factor=1e20, layout="halves"),
        case("tiny gates", [70, 64, 1], gate_factor=1e-20),
    ]
