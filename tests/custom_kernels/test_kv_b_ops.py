"""`absorb_query` and `value_up` against a loop over heads, rows and blocks."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.absorb_query import absorb_query
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import ROW_MAJOR, TILED_16X16, LayoutError
from predecode.custom_kernels.value_up import value_up
from predecode.custom_kernels.values import BlockScaledWeight
from tests.custom_kernels.cases import absorb_query as absorb_query_cases
from tests.custom_kernels.cases import value_up as value_up_cases
from tests.custom_kernels.cases.case import mismatch

FORMATS = sorted(ELEMENT_FORMATS)


def dequantized_row(weight, scales, head: int, row: int) -> np.ndarray:
    """Row ``row`` of ``head`` in float64; column l of flattened row n has scale scales[n//128, l//128]."""
    flat = head * weight.shape[1] + row
    columns = np.arange(weight.shape[2])
    return weight[head, row].double().numpy() * scales.double().numpy()[flat // 128, columns // 128]


def brute_absorb(q, weight, scales, rope_dim: int) -> torch.Tensor:
    heads, _, latent = weight.shape
    width = q.shape[1] // heads
    out = np.zeros((q.shape[0], heads, latent))
    for head in range(heads):
        for n in range(width - rope_dim):
            out[:, head] += np.outer(
                q[:, head * width + n].double().numpy(), dequantized_row(weight, scales, head, n)
            )
    return torch.from_numpy(out).to(q.dtype)


def brute_value_up(attention, weight, scales, nope_dim: int) -> torch.Tensor:
    rows, heads, _ = attention.shape
    out = np.zeros((rows, heads, weight.shape[1] - nope_dim))
    for head in range(heads):
        for j in range(out.shape[2]):
            row = dequantized_row(weight, scales, head, nope_dim + j)
            out[:, head, j] = attention[:, head].double().numpy() @ row
    return torch.from_numpy(out).to(attention.dtype)


OPS = {
    "absorb_query": (absorb_query_cases.cases, torch.ops.predecode.absorb_query, brute_absorb),
    "value_up": (value_up_cases.cases, torch.ops.predecode.value_up, brute_value_up),
}
ALL = [
    pytest.param(op, brute, case, id=f"{name}-{element_format}-{case.label}")
    for name, (cases, op, brute) in OPS.items()
    for element_format in FORMATS
    for case in cases(ELEMENT_FORMATS[element_format])
]


@pytest.mark.parametrize(("op", "brute", "case"), ALL)
def test_equals_the_loop(op, brute, case):
    assert mismatch(op(*case.arguments), brute(*case.arguments), case.compare[0]) is None


@pytest.mark.parametrize("name", sorted(OPS))
def test_scales_of_the_neighbouring_block_are_noticed(name):
    cases, op, brute = OPS[name]
    case = cases(ELEMENT_FORMATS["e4m3fn"])[-1]
    x, weight, scales, dim = case.arguments
    assert mismatch(op(x, weight, scales.roll(1, 0), dim), brute(*case.arguments), case.compare[0])
    assert mismatch(op(x, weight, scales.roll(1, 1), dim), brute(*case.arguments), case.compare[0])


@pytest.mark.parametrize("name", sorted(OPS))
def test_opcheck(name):
    cases, op, _ = OPS[name]
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(op.default, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrappers_refuse_other_layouts_and_shapes():
    x, weight, scales, rope = absorb_query_cases.cases(ELEMENT_FORMATS["e4m3fn"])[0].arguments
    tiled = BlockScaledWeight(weight, scales, TILED_16X16)
    plain = BlockScaledWeight(weight, scales, ROW_MAJOR)
    with pytest.raises(LayoutError, match=r"row-major.*tiled-16x16"):
        absorb_query(x, tiled, rope)
    with pytest.raises(LayoutError, match=r"row-major.*tiled-16x16"):
        value_up(torch.zeros(1, 4, 128), tiled, 64)
    with pytest.raises(ValueError, match="q is"):
        absorb_query(x[:, 1:], plain, rope)
    with pytest.raises(ValueError, match="attention is"):
        value_up(torch.zeros(1, 3, 128), plain, 64)
    assert absorb_query(x, plain, rope).shape == (1, 4, 128)
    assert value_up(torch.zeros(1, 4, 128), plain, 64).shape == (1, 4, 64)
