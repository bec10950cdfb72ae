"""`qk_rope_cat_and_cache_mla` against a loop over rows, heads and cache bytes."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.qk_rope_cat_and_cache_mla import OP, qk_rope_cat_and_cache_mla
from predecode.custom_kernels.values import LatentCache
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.qk_rope_cat_and_cache_mla import cases
from tests.custom_kernels.reference_quantize import encode
from tests.custom_kernels.reference_rotation import as_rounded, rotate_head

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(q, q_absorbed, latent, qkv_a, table, positions, cache, slots, layout, element_format):
    stored = ELEMENT_FORMATS[element_format]
    rows, heads, latent_dim = q_absorbed.shape
    rope_dim, head_dim = table.shape[1], q.shape[1] // heads
    new_cache = cache.clone().reshape(-1, (latent_dim + rope_dim) * stored.itemsize)

    def joined(left: torch.Tensor, right: torch.Tensor, row: int) -> torch.Tensor:
        rotated = rotate_head(right.float().numpy(), table[positions[row]].numpy(), layout, first=0)
        numbers = np.concatenate((left.float().numpy(), as_rounded(rotated, q.dtype)))
        return encode(numbers, stored)

    q_cat = torch.empty(rows, heads, latent_dim + rope_dim, dtype=stored.dtype)
    for row in range(rows):
        for head in range(heads):
            rope_part = q[row, (head + 1) * head_dim - rope_dim : (head + 1) * head_dim]
            q_cat[row, head] = joined(q_absorbed[row, head], rope_part, row)
        if slots[row] >= 0:
            new_cache[slots[row]] = joined(latent[row], qkv_a[row, -rope_dim:], row).view(torch.int8)
    return q_cat, new_cache.reshape(cache.shape)


def faults(given, expected, case):
    return [mismatch(g, e, rule) for g, e, rule in zip(given, expected, case.compare, strict=True)]


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    cache = case.arguments[6]
    before = cache.clone()
    assert faults(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]
    assert torch.equal(cache, before), "the op is functional: its argument stays"


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "65 rows")
    q, q_absorbed, _, qkv_a, table, positions, cache, slots, *_ = case.arguments
    expected = brute(*case.arguments)
    heads = q_absorbed.shape[1]
    other_format = (E4M3FNUZ if element_format is E4M3FN else E4M3FN).name
    rope_first = q.reshape(len(q), heads, -1).roll(64, 2).reshape(q.shape)
    a_page_off = torch.where(slots < 0, slots, (slots + 64) % (64 * len(cache)))
    arguments = dict(zip((a.name for a in OP.overload._schema.arguments), case.arguments, strict=True))
    wrong_q = {
        "rope dims first": {"q": rope_first},
        "halves": {"rope_layout": "halves"},
        "sines before cosines": {"rope_table": table.roll(32, 1)},
        "a position off": {"positions": positions.roll(1)},
        "heads exchanged": {"q_absorbed": q_absorbed.flip(1)},
    }
    wrong_cache = {
        "a page off": {"slot_mapping": a_page_off},
        "padding rows written": {"slot_mapping": torch.where(slots < 0, 0, slots)},
        "key's rope part elsewhere": {"qkv_a": qkv_a.roll(64, 1)},
        "halves": {"rope_layout": "halves"},
    }
    for result, wrong in ((0, wrong_q), (1, wrong_cache)):
        for label, change in wrong.items():
            given = OP.overload(*(arguments | change).values())
            assert faults(given, expected, case)[result], label
    assert mismatch(
        OP.overload(*(arguments | {"element_format": other_format}).values())[1], expected[1], case.compare[1]
    )


def test_rotation_keeps_lengths_and_depends_on_distance_only():
    case = next(c for c in cases(ELEMENT_FORMATS["float32"]) if c.label == "halves")
    q, q_absorbed, latent, qkv_a, table, _, cache, _, layout, name = case.arguments
    slots = torch.arange(5)

    def score(position: int, distance: int) -> torch.Tensor:
        positions = torch.tensor([position + distance, position, 0, 0, 0])
        q_cat, stored = OP.overload(
            q, q_absorbed, latent, qkv_a, table, positions, cache, slots, layout, name
        )
        key = stored.reshape(-1, 192 * 4)[1].view(torch.float32)
        return q_cat[0, :, 128:] @ key[128:]

    torch.testing.assert_close(score(3, 17), score(200, 17), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(score(3, 17), score(3, 18), rtol=1e-2)


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_shapes():
    q, q_absorbed, latent, qkv_a, table, positions, data, slots, layout, _ = cases(E4M3FN)[0].arguments
    rest = (table, positions, LatentCache(data), slots, layout, E4M3FN)
    q_cat, cache = qk_rope_cat_and_cache_mla(q, q_absorbed, latent, qkv_a, *rest)
    assert q_cat.shape == (1, 2, 192) and cache.data.shape == data.shape
    with pytest.raises(ValueError, match="pages of 64 tokens of 128 \\+ 64 elements in float32"):
        qk_rope_cat_and_cache_mla(
            q.float(),
            q_absorbed.float(),
            latent.float(),
            qkv_a.float(),
            *rest[:5],
            ELEMENT_FORMATS["float32"],
        )
    with pytest.raises(ValueError, match="latent"):
        qk_rope_cat_and_cache_mla(q, q_absorbed, latent[:, :64], qkv_a, *rest)
    with pytest.raises(ValueError, match="neox"):
        qk_rope_cat_and_cache_mla(q, q_absorbed, latent, qkv_a, *rest[:4], "neox", E4M3FN)
    with pytest.raises(ValueError, match="positions"):
        qk_rope_cat_and_cache_mla(q, q_absorbed, latent, qkv_a, table, positions.int(), *rest[2:])
