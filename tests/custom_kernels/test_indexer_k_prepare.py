"""`indexer_k_prepare` against a loop over rows."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.hadamard import hadamard_rotate
from predecode.custom_kernels.indexer_k_prepare import OP, indexer_k_prepare
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.indexer_k_prepare import cases
from tests.custom_kernels.reference_rotation import as_rounded, sylvester, turn_head

# e4m3fn and e4m3fnuz differ in no way before quantisation.
ALL = [pytest.param(c, id=f"{n}-{c.label}") for n in ("e4m3fn", "float32") for c in cases(ELEMENT_FORMATS[n])]


def brute(k, weight, bias, epsilon, table, positions, layout):
    prepared = np.empty(k.shape, dtype=np.float32)
    for row, numbers in enumerate(k.double().numpy()):
        centred = numbers - numbers.mean()
        normed = (
            centred / np.sqrt((centred**2).mean() + epsilon) * weight.double().numpy() + bias.double().numpy()
        )
        prepared[row] = turn_head(as_rounded(normed, k.dtype), table[positions[row]].numpy(), layout, k.dtype)
    return torch.from_numpy(prepared).to(k.dtype)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


def test_other_definitions_are_noticed():
    case = next(c for c in cases(ELEMENT_FORMATS["e4m3fn"]) if c.label == "65 rows")
    k, weight, bias, epsilon, table, positions, layout = case.arguments
    expected = brute(*case.arguments)
    wrong = {
        "halves": (k, weight, bias, epsilon, table, positions, "halves"),
        "no mean": (
            k - k.float().mean(1, keepdim=True).to(k.dtype) + 1,
            weight,
            bias * 0,
            epsilon,
            table,
            positions,
            layout,
        ),
        "large epsilon": (k, weight, bias, 1.0, table, positions, layout),
        "a position off": (k, weight, bias, epsilon, table, positions.roll(1), layout),
        "rope dims last": (k.roll(64, 1), weight.roll(64), bias.roll(64), epsilon, table, positions, layout),
    }
    for label, arguments in wrong.items():
        assert mismatch(OP.overload(*arguments), expected, case.compare[0]), label
    assert mismatch(hadamard_rotate(expected.float()).to(k.dtype), expected, case.compare[0]), "no Hadamard"


@pytest.mark.parametrize("size", [2, 128, 256])
def test_hadamard_is_sylvesters_and_orthonormal(size):
    given = hadamard_rotate(torch.eye(size)).numpy()
    np.testing.assert_array_equal(np.sign(given), np.sign(sylvester(size)))
    np.testing.assert_allclose(given @ given.T, np.eye(size), atol=1e-6)


def test_opcheck():
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_shapes():
    k, weight, bias, epsilon, table, positions, layout = cases(ELEMENT_FORMATS["e4m3fn"])[0].arguments
    assert indexer_k_prepare(k, weight, bias, epsilon, table, positions, layout).shape == k.shape
    with pytest.raises(ValueError, match=r"expected \[T, 128\]"):
        indexer_k_prepare(k[:, :64], weight, bias, epsilon, table, positions, layout)
    with pytest.raises(ValueError, match=r"\[128\] twice"):
        indexer_k_prepare(k, weight[:64], bias, epsilon, table, positions, layout)
    with pytest.raises(ValueError, match="rope layout"):
        indexer_k_prepare(k, weight, bias, epsilon, table, positions, "pairs")
