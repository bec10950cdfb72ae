"""`add_rms_norm_group_quant` against a loop over rows and groups."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.add_rms_norm_group_quant import OP, add_rms_norm_group_quant
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from tests.custom_kernels.cases.add_rms_norm_group_quant import cases
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.reference_quantize import normalize_row, quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x, residual, weight, epsilon, element_format):
    totals = x.float().numpy() + residual.float().numpy()
    normed = np.stack([normalize_row(row, weight, epsilon) for row in totals])
    values, scales = quantize_rows(normed, ELEMENT_FORMATS[element_format])
    return values, scales, torch.from_numpy(normed).to(x.dtype), torch.from_numpy(totals).to(x.dtype)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None] * 4


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "GLM-5.1")
    x, residual, weight, epsilon, _ = case.arguments
    expected = brute(*case.arguments)
    given = OP.overload(*case.arguments)
    rounded_sum = OP.overload(given[3], torch.zeros_like(x), weight, epsilon, element_format)
    assert any(mismatches((*rounded_sum[:3], given[3]), expected, case)), "norm of the rounded sum"
    assert mismatches((*given[:3], residual), expected, case)[3], "the old residual"
    no_residual = OP.overload(x, torch.zeros_like(x), weight, epsilon, element_format)
    assert any(mismatches(no_residual, expected, case)), "no residual"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    x, weight = torch.ones(3, 256, dtype=torch.bfloat16), torch.ones(256, dtype=torch.bfloat16)
    result, normed, total = add_rms_norm_group_quant(x, x, weight, 1e-5, element_format)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (2, 3)
    assert normed.shape == x.shape and torch.equal(total, x + x)
    with pytest.raises(ValueError, match=r"residual is torch.bfloat16 \[2, 256\], expected torch.bfloat16 \[3, 256\]"):
        add_rms_norm_group_quant(x, x[:2], weight, 1e-5, element_format)
    with pytest.raises(ValueError, match=r"weight is torch.float32"):
        add_rms_norm_group_quant(x, x, weight.float(), 1e-5, element_format)
