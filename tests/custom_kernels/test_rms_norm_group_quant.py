"""`rms_norm_group_quant` against a loop over rows and groups."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from predecode.custom_kernels.rms_norm_group_quant import OP, rms_norm_group_quant
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.rms_norm_group_quant import cases
from tests.custom_kernels.reference_quantize import normalize_row, quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x, weight, epsilon, element_format):
    normed = np.stack([normalize_row(row, weight, epsilon) for row in x.float().numpy()])
    return *quantize_rows(normed, ELEMENT_FORMATS[element_format]), torch.from_numpy(normed).to(x.dtype)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None] * 3


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "GLM-5.1")
    x, weight, epsilon, _ = case.arguments
    expected = brute(*case.arguments)
    values, scales, normed = OP.overload(*case.arguments)
    requantized = quantize_rows(normed.float().numpy(), ELEMENT_FORMATS[element_format])
    assert any(mismatches((*requantized, normed), expected, case)), "quantised from the rounded norm"
    row_major = scales.T.contiguous().reshape(scales.shape)
    assert any(mismatches((values, row_major, normed), expected, case)), "row-major scales"
    assert any(mismatches(OP.overload(x, weight + 1, epsilon, element_format), expected, case)), "1 + weight"
    assert any(mismatches(OP.overload(x, weight, 10.0, element_format), expected, case)), "another epsilon"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    x, weight = torch.ones(3, 256, dtype=torch.bfloat16), torch.ones(256, dtype=torch.bfloat16)
    result, normed = rms_norm_group_quant(x, weight, 1e-5, element_format)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (2, 3)
    assert normed.shape == x.shape and normed.dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"weight is torch.bfloat16 \[128\], expected torch.bfloat16 \[256\]"):
        rms_norm_group_quant(x, weight[:128], 1e-5, element_format)
    with pytest.raises(ValueError, match=r"192 columns, expected a multiple of 128"):
        rms_norm_group_quant(x[:, :192], weight[:192], 1e-5, element_format)
