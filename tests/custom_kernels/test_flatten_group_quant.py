"""`flatten_group_quant` against a loop over rows and groups."""

import pytest
import torch

from predecode.custom_kernels.flatten_group_quant import OP, flatten_group_quant
from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from tests.custom_kernels.cases.case import EXACT, mismatch
from tests.custom_kernels.cases.flatten_group_quant import cases
from tests.custom_kernels.reference_quantize import quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x, element_format):
    return quantize_rows(x.float().reshape(len(x), -1).numpy(), ELEMENT_FORMATS[element_format])


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    for given, expected, rule in zip(
        OP.overload(*case.arguments), brute(*case.arguments), case.compare, strict=True
    ):
        assert mismatch(given, expected, rule) is None


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_numbers_and_layouts_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "3x5x384")
    x, _ = case.arguments
    values, scales = OP.overload(*case.arguments)
    other = "e4m3fn" if element_format == "e4m3fnuz" else "e4m3fnuz"
    other_values, other_scales = OP.overload(x, other)
    expected_values, expected_scales = brute(*case.arguments)
    assert mismatch(other_values.view(torch.uint8).view(values.dtype), expected_values, EXACT)
    assert mismatch(other_scales, expected_scales, case.compare[1])
    assert mismatch(scales.T.contiguous().reshape(scales.shape), expected_scales, case.compare[1])
    heads_swapped = OP.overload(x.transpose(1, 2).reshape(x.shape), element_format)
    assert mismatch(heads_swapped[0], expected_values, EXACT)


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    x = torch.ones(2, 3, 128, dtype=torch.bfloat16)
    result = flatten_group_quant(x, element_format)
    assert result.layout == GROUP_MAJOR_SCALES and result.scales.shape == (3, 2)
    with pytest.raises(ValueError, match=r"x is torch.float32 .*expected torch.bfloat16"):
        flatten_group_quant(x.float(), element_format)
    with pytest.raises(ValueError, match=r"64 columns, expected a multiple of 128"):
        flatten_group_quant(x.reshape(2, 6, 64), element_format)
