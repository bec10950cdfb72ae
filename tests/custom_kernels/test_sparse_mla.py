"""`sparse_mla` against a loop over rows, heads and slots in float64."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.sparse_mla import OP, sparse_mla, splits_of
from predecode.custom_kernels.targets import GFX942, GFX950, SM_90
from predecode.custom_kernels.values import LatentCache
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.sparse_mla import cases
from tests.custom_kernels.reference_formats import decode

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(query, cache, slots, value_dim, scale, splits):
    rows, heads, width = query.shape
    stride = width * query.dtype.itemsize
    pool = cache.reshape(-1)
    output = np.zeros((rows, heads, splits, value_dim))
    log_sums = np.full((rows, heads, splits), -np.inf)
    queries = decode(query)
    for row, split in np.ndindex(rows, splits):
        chosen = [slot for i, slot in enumerate(slots[row].tolist()) if slot >= 0 and i // 64 % splits == split]
        if not chosen:
            continue
        keys = np.stack([decode(pool[slot * stride : (slot + 1) * stride].view(query.dtype)) for slot in chosen])
        for head in range(heads):
            scores = keys @ queries[row, head] * scale
            weights = np.exp(scores - scores.max())
            output[row, head, split] = weights @ keys[:, :value_dim] / weights.sum()
            log_sums[row, head, split] = scores.max() + np.log(weights.sum())
    dtype = torch.float16 if query.dtype.itemsize == 1 else torch.float32
    return torch.from_numpy(output).to(dtype), torch.from_numpy(log_sums).float()


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "slots around a tile, 2 splits")
    arguments = dict(zip((a.name for a in OP.overload._schema.arguments), case.arguments, strict=True))
    query, cache, slots, *_ = case.arguments
    expected = brute(*case.arguments)
    other = torch.float8_e4m3fn if element_format == "e4m3fnuz" else torch.float8_e4m3fnuz
    wrong = {
        "the other FP8 format": {"query": query.view(other)},
        "no scale": {"scale": 1.0},
        "a slot further": {"slots": torch.where(slots >= 0, (slots + 1) % 512, slots)},
        "one slot less": {"slots": torch.where(slots == slots.max(1, True).values, -1, slots)},
        "heads in another order": {"query": query.flip(1)},
        "slot 0 instead of -1": {"slots": slots.clamp_min(0)},
        "bytes in another order": {"cache": cache.roll(1, 1)},
        "tiles that start elsewhere": {"slots": slots.roll(32, 1)},
    }
    for label, change in wrong.items():
        assert all(mismatches(OP.overload(*(arguments | change).values()), expected, case)), label


def test_parts_combine_to_the_whole():
    case = next(c for c in cases(ELEMENT_FORMATS["float32"]) if c.label == "tiles without slots, 3 splits")
    *arguments, splits = case.arguments
    (whole,), (log_sum,) = (part.unbind(2) for part in OP.overload(*arguments, 1))
    values, log_sums = OP.overload(*arguments, splits)
    assert (log_sums == float("-inf")).any() and splits == 3
    combined = (torch.softmax(log_sums, 2)[..., None] * values).sum(2)
    torch.testing.assert_close(combined, whole, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(log_sums.logsumexp(2), log_sum)


def test_splits_fill_the_chip_but_not_more():
    assert splits_of(1, 8, 2048) == splits_of(4, 8, 2048) == 32, "a tile each"
    assert splits_of(16, 8, 2048) == 16 and splits_of(64, 8, 2048) == 4
    assert splits_of(64, 128, 2048) == 1 and splits_of(4, 128, 2048) == 8
    assert splits_of(4, 8, 1) == 1 and splits_of(1000, 8, 2048) == 1


def tiles_in_memory(target, rows, topk):
    """By the launch, and by what a resident grid runs instead."""
    splits = splits_of(rows, 8, topk)
    named = {
        "query": torch.empty(rows, 8, 576, dtype=target.element_format.dtype, device="meta"),
        "cache": torch.empty(4, 64 * 576, dtype=torch.int8, device="meta"),
        "slots": torch.empty(rows, topk, dtype=torch.int32, device="meta"),
    }
    call = Call(named | {"value_dim": 512, "scale": 1.0, "splits": splits}, ())
    launch = OP.launch_on(target, call)
    return [dict(used.defines)["TILES"] for used in (launch, launch.when_resident) if used]


def test_nvidia_gathers_a_tile_ahead_where_there_are_several():
    assert tiles_in_memory(SM_90, 64, 2048) == tiles_in_memory(SM_90, 33, 2048) == [2, 1], "eight and five tiles"
    assert tiles_in_memory(SM_90, 4, 2048) == tiles_in_memory(SM_90, 16, 2048) == [1], "one and two"
    assert tiles_in_memory(GFX942, 64, 2048) == tiles_in_memory(GFX950, 64, 2048) == [1]


def test_a_nan_in_a_chosen_slot_is_not_hidden():
    query, cache, _, value_dim, scale, _ = cases(ELEMENT_FORMATS["e4m3fn"])[1].arguments
    slots = torch.tensor([[0, 3], [1, 3], [2, -1], [4, 5], [6, 7]], dtype=torch.int32)
    values, log_sums = OP.overload(query, cache, slots, value_dim, scale, 1)
    assert values.isnan().flatten(1).all(1).tolist() == [True, False, False, False, False]
    assert log_sums.isnan().flatten(1).all(1).tolist() == [True, False, False, False, False]


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_shapes():
    query, data, slots, value_dim, scale, _ = cases(ELEMENT_FORMATS["e4m3fn"])[0].arguments
    cache = LatentCache(data)
    parts = sparse_mla(query, cache, slots, value_dim, scale)
    assert parts.values.dtype == torch.float16 and parts.values.shape == (1, 1, 1, 64)
    with pytest.raises(ValueError, match=r"cache is torch.int8 \[8, 8190\], expected torch.int8 \[pages, 8192\]"):
        sparse_mla(query, LatentCache(data[:, :-2]), slots, value_dim, scale)
    with pytest.raises(ValueError, match=r"slots is torch.int64"):
        sparse_mla(query, cache, slots.long(), value_dim, scale)
    with pytest.raises(ValueError, match=r"value_dim is 129"):
        sparse_mla(query, cache, slots, 129, scale)
    with pytest.raises(ValueError, match=r"query is torch.bfloat16, expected one of"):
        sparse_mla(query.to(torch.bfloat16), cache, slots, value_dim, scale)
