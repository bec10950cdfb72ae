"""`indexer_k_quant_and_cache` against a loop over rows and page bytes."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.indexer_k_quant_and_cache import OP, indexer_k_quant_and_cache
from predecode.custom_kernels.indexer_quantize import round_up_to_power_of_two
from predecode.custom_kernels.layouts import PLAIN_PAGE, PRESHUFFLED_PAGE
from predecode.custom_kernels.values import IndexerCache
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.indexer_k_quant_and_cache import cases
from tests.custom_kernels.reference_indexer import key_offset, quantize_head, scale_bytes

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(k, cache, slot_mapping, scale_format, page_layout, element_format):
    stored = ELEMENT_FORMATS[element_format]
    size = stored.itemsize
    result = cache.clone()
    for row, slot in enumerate(slot_mapping.tolist()):
        if slot < 0:
            continue
        codes, scale = quantize_head(k[row].float().numpy(), stored.maximum, scale_format, stored)
        page, token = result[slot // 64], slot % 64
        code_bytes = codes.view(torch.int8).reshape(128, size)
        for dim in range(128):
            first = key_offset(token, dim, page_layout) * size
            page[first : first + size] = code_bytes[dim]
        page[scale_bytes(token, size)] = torch.from_numpy(np.array([scale])).view(torch.int8)
    return result


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    cache = case.arguments[1]
    before = cache.clone()
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None
    assert torch.equal(cache, before), "the op is functional: its argument stays"


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_layouts_and_formats_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "65 rows")
    k, cache, slots, scale_format, page_layout, name = case.arguments
    expected = brute(*case.arguments)
    other_format = (E4M3FNUZ if element_format is E4M3FN else E4M3FN).name
    padding_written = torch.where(slots < 0, (slots.max() + 1) % (64 * len(cache)), slots)
    wrong = {
        "plain page": (k, cache, slots, scale_format, PLAIN_PAGE.name, name),
        "other FP8 format": (k, cache, slots, scale_format, page_layout, other_format),
        "scales not powers of two": (k, cache, slots, "float32", page_layout, name),
        "a page off": (
            k,
            cache,
            torch.where(slots < 0, slots, (slots + 64) % (64 * len(cache))),
            *case.arguments[3:],
        ),
        "a token off": (k, cache, torch.where(slots < 0, slots, slots ^ 1), *case.arguments[3:]),
        "padding rows written": (k, cache, padding_written, *case.arguments[3:]),
    }
    for label, arguments in wrong.items():
        assert mismatch(OP.overload(*arguments), expected, case.compare[0]), label
    right = OP.overload(*case.arguments)
    tiles_turned = right.clone()
    tiles_turned[:, :8192] = right[:, :8192].reshape(-1, 4, 8, 16, 16).transpose(3, 4).reshape(-1, 8192)
    assert mismatch(tiles_turned, expected, case.compare[0]), "tile transposed"
    assert mismatch(torch.cat((right[:, :8192], right[:, 8192:].roll(4, 1)), 1), expected, case.compare[0])


def test_scales_round_up_to_powers_of_two():
    exact = torch.exp2(torch.arange(-30.0, 31.0))
    assert torch.equal(round_up_to_power_of_two(exact), exact)
    above = torch.nextafter(exact, torch.tensor(torch.inf))
    assert torch.equal(round_up_to_power_of_two(above), 2 * exact)
    below = torch.nextafter(exact, torch.tensor(0.0))
    assert torch.equal(round_up_to_power_of_two(below), exact)
    special = round_up_to_power_of_two(torch.tensor([torch.inf, torch.nan]))
    assert special[0] == torch.inf and special[1].isnan()


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_keeps_the_layout_and_refuses_other_shapes():
    k, data, slots, *_ = cases(E4M3FN)[0].arguments
    cache = IndexerCache(data, PRESHUFFLED_PAGE)
    assert indexer_k_quant_and_cache(k, cache, slots, "ue8m0", E4M3FN).page == PRESHUFFLED_PAGE
    with pytest.raises(ValueError, match=r"expected int8 \[pages, 8448\]"):
        indexer_k_quant_and_cache(k, IndexerCache(data[:, :-4], PLAIN_PAGE), slots, "ue8m0", E4M3FN)
    with pytest.raises(ValueError, match="expected int8"):
        indexer_k_quant_and_cache(k, IndexerCache(data.view(torch.uint8), PLAIN_PAGE), slots, "ue8m0", E4M3FN)
    with pytest.raises(ValueError, match="expected one of ue8m0, float32"):
        indexer_k_quant_and_cache(k, cache, slots, "UE8M0", E4M3FN)
    with pytest.raises(ValueError, match="one slot per row"):
        indexer_k_quant_and_cache(k, cache, slots.int(), "ue8m0", E4M3FN)
    with pytest.raises(ValueError, match="expected torch"):
        indexer_k_quant_and_cache(k.float(), cache, slots, "ue8m0", E4M3FN)
