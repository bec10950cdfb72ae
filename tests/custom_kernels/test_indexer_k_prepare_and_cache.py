"""`indexer_k_prepare_and_cache` against a loop over rows and page bytes."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, ELEMENT_FORMATS
from predecode.custom_kernels.hadamard import hadamard_rotate
from predecode.custom_kernels.indexer_k_prepare_and_cache import OP, indexer_k_prepare_and_cache
from predecode.custom_kernels.layouts import PRESHUFFLED_PAGE
from predecode.custom_kernels.values import IndexerCache
from tests.custom_kernels.cases.case import Comparison, mismatch
from tests.custom_kernels.cases.indexer_k_prepare_and_cache import cases
from tests.custom_kernels.reference_indexer import key_offset, quantize_head, scale_bytes
from tests.custom_kernels.reference_rotation import as_rounded, sylvester, turn_head

NAMES = (
    "k", "weight", "bias", "epsilon", "rope_table", "positions", "cache", "slot_mapping", "rope_layout",
    "scale_format", "page_layout", "element_format",
)  # fmt: skip


def prepared(head, weight, bias, epsilon, table_row, layout):
    numbers = head.double().numpy()
    centred = numbers - numbers.mean()
    normed = centred / np.sqrt((centred**2).mean() + epsilon) * weight.double().numpy() + bias.double().numpy()
    return turn_head(as_rounded(normed, head.dtype), table_row.numpy(), layout, head.dtype)


def brute(k, weight, bias, epsilon, table, positions, cache, slots, layout, scale_format, page_layout, element_format):
    stored = ELEMENT_FORMATS[element_format]
    size, result = stored.itemsize, cache.clone()
    for row, slot in enumerate(slots.tolist()):
        if slot < 0:
            continue
        head = prepared(k[row], weight, bias, epsilon, table[positions[row]], layout)
        codes, scale = quantize_head(head.astype(np.float32), stored.maximum, scale_format, stored)
        page, token = result[slot // 64], slot % 64
        code_bytes = codes.view(torch.int8).reshape(128, size)
        for dim in range(128):
            first = key_offset(token, dim, page_layout) * size
            page[first : first + size] = code_bytes[dim]
        page[scale_bytes(token, size)] = torch.from_numpy(np.array([scale])).view(torch.int8)
    return result


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_equals_the_loop(element_format):
    for case in cases(element_format):
        before = case.arguments[6].clone()
        fault = mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0])
        assert fault is None, f"{case.label}: {fault}"
        assert torch.equal(case.arguments[6], before), "the op is functional: its argument stays"


def test_equals_the_loop_in_float32():
    for case in cases(ELEMENT_FORMATS["float32"]):
        arguments = list(case.arguments)
        arguments[6] = torch.randn(arguments[6].shape[0], arguments[6].shape[1] // 4).view(torch.int8)
        given, expected = OP.overload(*arguments), brute(*arguments)
        fault = mismatch(given.view(torch.float32), expected.view(torch.float32), Comparison(relative=1e-5))
        assert fault is None, f"{case.label}: {fault}"


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(element_format) if c.label == "65 rows")
    given = dict(zip(NAMES, case.arguments, strict=True))
    expected, k, slots = brute(*case.arguments), given["k"], given["slot_mapping"]
    other_format = (E4M3FNUZ if element_format is E4M3FN else E4M3FN).name
    rolled = {name: given[name].roll(64, -1) for name in ("k", "weight", "bias")}
    no_mean = {"k": k - k.float().mean(1, keepdim=True).to(k.dtype) + 1, "bias": given["bias"] * 0}
    wrong = {
        "halves": {"rope_layout": "halves"},
        "no mean": no_mean,
        "large epsilon": {"epsilon": 1.0},
        "a position off": {"positions": given["positions"].roll(1)},
        "rope dims last": rolled,
        "a token off": {"slot_mapping": torch.where(slots < 0, slots, slots ^ 1)},
        "padding rows written": {
            "slot_mapping": torch.where(slots < 0, (slots.max() + 1) % (64 * len(given["cache"])), slots)
        },
        "plain page": {"page_layout": "plain page"},
        "scales not powers of two": {"scale_format": "float32"},
        "other FP8 format": {"element_format": other_format},
    }
    for label, changed in wrong.items():
        assert mismatch(OP.overload(*(given | changed).values()), expected, case.compare[0]), label
    other = expected.clone()
    other[:, 64 * 128 :] = expected[:, 64 * 128 :].roll(4, 1)
    assert mismatch(other, expected, case.compare[0]), "scales a token off"


def test_no_rotation_is_noticed(monkeypatch):
    case = next(c for c in cases(E4M3FN) if c.label == "65 rows")
    right = OP.overload(*case.arguments)
    monkeypatch.setattr("predecode.custom_kernels.indexer_rotation.hadamard_rotate", lambda x: x)
    assert mismatch(OP.reference(*case.arguments), right, case.compare[0]), "no Hadamard"


@pytest.mark.parametrize("size", [2, 128, 256])
def test_hadamard_is_sylvesters_and_orthonormal(size):
    given = hadamard_rotate(torch.eye(size)).numpy()
    np.testing.assert_array_equal(np.sign(given), np.sign(sylvester(size)))
    np.testing.assert_allclose(given @ given.T, np.eye(size), atol=1e-6)


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_keeps_the_layout_and_refuses_other_arguments():
    given = dict(zip(NAMES, cases(E4M3FN)[0].arguments, strict=True))
    del given["page_layout"]
    given |= {"cache": IndexerCache(given["cache"], PRESHUFFLED_PAGE), "element_format": E4M3FN}
    assert indexer_k_prepare_and_cache(**given).page == PRESHUFFLED_PAGE
    wrong = {
        r"expected torch.bfloat16\[T, 128\]": {"k": given["k"][:, :64]},
        r"expected torch.bfloat16\[T": {"k": given["k"].float()},
        r"\[128\] twice": {"weight": given["weight"][:64]},
        "rope layout": {"rope_layout": "pairs"},
        r"expected int8 \[pages, 8448\]": {"cache": IndexerCache(given["cache"].data[:, :-4], PRESHUFFLED_PAGE)},
        "one slot per row": {"slot_mapping": given["slot_mapping"].int()},
        "expected one of ue8m0, float32": {"scale_format": "UE8M0"},
    }
    for message, changed in wrong.items():
        with pytest.raises(ValueError, match=message):
            indexer_k_prepare_and_cache(**(given | changed))
