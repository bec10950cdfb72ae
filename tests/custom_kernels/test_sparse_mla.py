"""`sparse_mla` against a loop over rows, heads and slots in float64."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.sparse_mla import OP, sparse_mla
from predecode.custom_kernels.values import LatentCache
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.sparse_mla import cases
from tests.custom_kernels.reference_formats import decode

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(query, cache, slots, value_dim, scale):
    rows, heads, width = query.shape
    stride = width * query.dtype.itemsize
    pool = cache.reshape(-1)
    output = np.zeros((rows, heads, value_dim))
    queries = decode(query)
    for row in range(rows):
        chosen = [slot for slot in slots[row].tolist() if slot >= 0]
        if not chosen:
            continue
        keys = np.stack(
            [decode(pool[slot * stride : (slot + 1) * stride].view(query.dtype)) for slot in chosen]
        )
        for head in range(heads):
            scores = keys @ queries[row, head] * scale
            weights = np.exp(scores - scores.max())
            output[row, head] = weights @ keys[:, :value_dim] / weights.sum()
    dtype = torch.bfloat16 if query.dtype.itemsize == 1 else torch.float32
    return torch.from_numpy(output).float().to(dtype)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "slots around a tile")
    query, cache, slots, value_dim, scale = case.arguments
    expected = brute(*case.arguments)
    other = torch.float8_e4m3fn if element_format == "e4m3fnuz" else torch.float8_e4m3fnuz
    wrong = {
        "the other FP8 format": (query.view(other), cache, slots, value_dim, scale),
        "no scale": (query, cache, slots, value_dim, 1.0),
        "a slot further": (query, cache, torch.where(slots >= 0, (slots + 1) % 512, slots), value_dim, scale),
        "one slot less": (
            query,
            cache,
            torch.where(slots == slots.max(1, True).values, -1, slots),
            value_dim,
            scale,
        ),
        "heads in another order": (query.flip(1), cache, slots, value_dim, scale),
        "slot 0 instead of -1": (query, cache, slots.clamp_min(0), value_dim, scale),
        "bytes in another order": (query, cache.roll(1, 1), slots, value_dim, scale),
    }
    for label, arguments in wrong.items():
        assert mismatch(OP.overload(*arguments), expected, case.compare[0]), label


def test_a_nan_in_a_chosen_slot_is_not_hidden():
    query, cache, _, value_dim, scale = cases(ELEMENT_FORMATS["e4m3fn"])[1].arguments
    slots = torch.tensor([[0, 3], [1, 3], [2, -1], [4, 5], [6, 7]], dtype=torch.int32)
    poisoned = OP.overload(query, cache, slots, value_dim, scale).isnan().flatten(1).all(1)
    assert poisoned.tolist() == [True, False, False, False, False]


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_shapes():
    query, data, slots, value_dim, scale = cases(ELEMENT_FORMATS["e4m3fn"])[0].arguments
    cache = LatentCache(data)
    assert sparse_mla(query, cache, slots, value_dim, scale).dtype == torch.bfloat16
    with pytest.raises(
        ValueError, match=r"cache is torch.int8 \[8, 3070\], expected torch.int8 \[pages, 3072\]"
    ):
        sparse_mla(query, LatentCache(data[:, :-2]), slots, value_dim, scale)
    with pytest.raises(ValueError, match=r"slots is torch.int64"):
        sparse_mla(query, cache, slots.long(), value_dim, scale)
    with pytest.raises(ValueError, match=r"value_dim is 49"):
        sparse_mla(query, cache, slots, 49, scale)
    with pytest.raises(ValueError, match=r"query is torch.bfloat16, expected one of"):
        sparse_mla(query.to(torch.bfloat16), cache, slots, value_dim, scale)
