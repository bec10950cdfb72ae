"""`cp_gather_indexer_k_quant_cache` against a loop over sequences, tokens and page bytes."""

from itertools import pairwise

import pytest
import torch

from predecode.custom_kernels.cp_gather_indexer_k_quant_cache import OP, cp_gather_indexer_k_quant_cache
from predecode.custom_kernels.formats import E4M3FN, ELEMENT_FORMATS
from predecode.custom_kernels.indexer_k_quant_and_cache import indexer_k_quant_and_cache
from predecode.custom_kernels.layouts import INDEXER_PAGES, PLAIN_PAGE, PRESHUFFLED_PAGE
from predecode.custom_kernels.values import IndexerCache
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.cp_gather_indexer_k_quant_cache import cases
from tests.custom_kernels.reference_indexer import key_offset, scale_bytes

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(cache, block_table, cumulative_lengths, total, page_layout, element_format):
    size = ELEMENT_FORMATS[element_format].itemsize
    keys = torch.zeros(total, 128, size, dtype=torch.int8)
    scales = torch.zeros(total, 4, dtype=torch.int8)
    ends, row = cumulative_lengths.tolist(), 0
    offsets = {t: torch.tensor([key_offset(t, d, page_layout) for d in range(128)]) for t in range(64)}
    for sequence, (start, end) in enumerate(pairwise(ends)):
        for position in range(end - start):
            page, token = cache[block_table[sequence, position // 64]], position % 64
            keys[row] = page[: 64 * 128 * size].reshape(-1, size)[offsets[token]]
            scales[row] = page[scale_bytes(token, size)]
            row += 1
    return keys.reshape(total, -1).view(ELEMENT_FORMATS[element_format].dtype), scales.view(torch.float32)[:, 0]


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


def test_other_layouts_are_noticed():
    case = next(c for c in cases(E4M3FN) if c.label == "63, 64 and 65 tokens")
    cache, table, ends, total, page_layout, name = case.arguments
    expected = brute(*case.arguments)
    shifted = torch.cat((cache[:, :8192], cache[:, 8192:].roll(4, 1)), 1)
    wrong = {
        "plain page": (cache, table, ends, total, PLAIN_PAGE.name, name),
        "pages in another order": (cache, table.flip(0), ends, total, page_layout, name),
        "a page off": (cache.roll(1, 0), table, ends, total, page_layout, name),
        "scales a token off": (shifted, table, ends, total, page_layout, name),
        "a boundary off": (cache, table, ends - torch.tensor([0, 1, 0, 0]), total, page_layout, name),
    }
    for label, arguments in wrong.items():
        assert any(mismatches(OP.overload(*arguments), expected, case)), label


@pytest.mark.parametrize("page", INDEXER_PAGES.values(), ids=lambda page: page.name)
@pytest.mark.parametrize("element_format", ELEMENT_FORMATS.values(), ids=lambda f: f.name)
def test_reads_back_what_was_stored(page, element_format):
    generator = torch.Generator().manual_seed(3)
    k = torch.randn(192, 128, generator=generator).to(element_format.activation_dtype)
    empty = IndexerCache(torch.zeros(5, page.page_bytes(element_format.itemsize), dtype=torch.int8), page)
    table = torch.tensor([[4, 0, 2]], dtype=torch.int32)
    slots = table[0].long().repeat_interleave(64) * 64 + torch.arange(192) % 64
    cache = indexer_k_quant_and_cache(k, empty, slots, "ue8m0", element_format)
    ends = torch.tensor([0, 192], dtype=torch.int32)
    keys, scales = cp_gather_indexer_k_quant_cache(cache, table, ends, 192, element_format)
    error = (keys.float() * scales[:, None] - k.float()).abs().amax(1) / k.float().abs().amax(1)
    assert error.max() <= (2.0**-4 if element_format.is_quantized else 0.0)
    assert torch.equal(torch.log2(scales), torch.log2(scales).round())


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors; scales drawn from random bytes may be NaN, so zeros.
    cache, *rest = cases(ELEMENT_FORMATS["float32"])[0].arguments
    torch.library.opcheck(OP.overload, (torch.zeros_like(cache), *rest))


def test_wrapper_refuses_other_shapes():
    data, table, ends, total, *_ = cases(E4M3FN)[1].arguments
    cache = IndexerCache(data, PRESHUFFLED_PAGE)
    keys, scales = cp_gather_indexer_k_quant_cache(cache, table, ends, total, E4M3FN)
    assert keys.shape == (total, 128) and scales.shape == (total,)
    with pytest.raises(ValueError, match="one more than the block table has rows"):
        cp_gather_indexer_k_quant_cache(cache, table, ends[1:], total, E4M3FN)
    with pytest.raises(ValueError, match="expected int32"):
        cp_gather_indexer_k_quant_cache(cache, table.long(), ends, total, E4M3FN)
    with pytest.raises(ValueError, match="at least one row"):
        cp_gather_indexer_k_quant_cache(cache, table, ends, 0, E4M3FN)
    with pytest.raises(ValueError, match="expected int8"):
        cp_gather_indexer_k_quant_cache(IndexerCache(data[:, 1:], PRESHUFFLED_PAGE), table, ends, total, E4M3FN)
