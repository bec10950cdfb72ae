"""`value_up_group_quant` against a loop over heads, rows and parts."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, ROW_MAJOR, TILED_16X16, LayoutError
from predecode.custom_kernels.value_up_group_quant import OP, value_up_group_quant
from predecode.custom_kernels.values import AttentionParts, BlockScaledWeight
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.kv_b import dequantized_row
from tests.custom_kernels.cases.value_up_group_quant import cases
from tests.custom_kernels.reference_quantize import quantize_rows
from tests.custom_kernels.reference_rotation import as_rounded

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(parts, log_sums, weight, scales, nope_dim):
    element_format = next(f for f in ELEMENT_FORMATS.values() if f.dtype == weight.dtype)
    rows, heads, _, latent = parts.shape
    out = np.zeros((rows, heads, weight.shape[1] - nope_dim))
    for head in range(heads):
        values = np.stack([dequantized_row(weight, scales, head, n) for n in range(nope_dim, weight.shape[1])])
        for row in range(rows):
            attended = np.zeros(latent)
            logs = log_sums[row, head].double().numpy()
            if logs.max() > -np.inf or np.isnan(logs).any():
                weights = np.exp(logs - logs.max())
                attended = weights @ parts[row, head].double().numpy() / weights.sum()
            out[row, head] = values @ as_rounded(attended, parts.dtype).astype(np.float64)
    flat = as_rounded(out.reshape(rows, -1), element_format.activation_dtype)
    return quantize_rows(flat, element_format)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "blocks that straddle heads")
    arguments = dict(zip((a.name for a in OP.overload._schema.arguments), case.arguments, strict=True))
    parts, log_sums, weight, scales, nope = case.arguments
    wrong = {
        "parts in another order": {"parts": parts.flip(2)},
        "parts of equal weight": {"log_sums": torch.zeros_like(log_sums)},
        "base 2": {"log_sums": log_sums * np.log(2)},
        "heads in another order": {"parts": parts.flip(1), "log_sums": log_sums.flip(1)},
        "scales of the next rows": {"weight_scales": scales.roll(1, 0)},
        "scales of the next columns": {"weight_scales": scales.roll(1, 1)},
        "key rows": {"weight": weight.roll(nope, 1)},
        "the first part alone": {"log_sums": torch.where(torch.arange(3) == 0, 0.0, float("-inf")).expand(5, 3, 3)},
    }
    expected = brute(*case.arguments)
    for label, change in wrong.items():
        assert mismatches(OP.overload(*(arguments | change).values()), expected, case)[0], label
    values, group_scales = OP.overload(*case.arguments)
    row_major = group_scales.T.contiguous().reshape(group_scales.shape)
    assert mismatches((values, row_major), expected, case)[1], "row-major scales"


def test_parts_without_tokens_count_for_nothing():
    case = next(c for c in cases(E4M3FN) if c.label == "rows and parts without tokens")
    values, scales = OP.overload(*case.arguments)
    assert not values[0].float().any() and values[1:].float().abs().amax(1).min() > 0
    parts, log_sums, *rest = case.arguments
    other = torch.where((log_sums == float("-inf"))[..., None], torch.ones_like(parts), parts)
    assert torch.equal(OP.overload(other, log_sums, *rest)[1], scales)


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    values, log_sums, weight, scales, nope = cases(E4M3FN)[0].arguments
    plain, parts = BlockScaledWeight(weight, scales, ROW_MAJOR), AttentionParts(values, log_sums)
    result = value_up_group_quant(parts, plain, nope)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (4, 1)
    with pytest.raises(LayoutError, match=r"row-major.*tiled-16x16"):
        value_up_group_quant(parts, BlockScaledWeight(weight, scales, TILED_16X16), nope)
    with pytest.raises(ValueError, match=r"parts are \[1, 3, 1, 128\].*expected \[T, 4, parts, 128\]"):
        value_up_group_quant(AttentionParts(values[:, 1:], log_sums[:, 1:]), plain, nope)
    with pytest.raises(ValueError, match=r"log sums \[1, 4\]"):
        value_up_group_quant(AttentionParts(values, log_sums[..., 0]), plain, nope)
    with pytest.raises(ValueError, match=r"nope_dim is 192"):
        value_up_group_quant(parts, plain, 192)
    with pytest.raises(ValueError, match=r"144 columns, expected a multiple of 128"):
        value_up_group_quant(parts, plain, 48)
