"""`group_quant` against a loop over rows and groups."""

import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.group_quant import OP, group_quant
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.group_quant import cases
from tests.custom_kernels.reference_quantize import quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x, element_format):
    return quantize_rows(x.float().numpy(), ELEMENT_FORMATS[element_format])


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "63 rows of 256")
    x, _ = case.arguments
    expected = brute(*case.arguments)
    assert any(mismatches(OP.overload(x.flip(0), element_format), expected, case)), "rows in another order"
    assert any(mismatches(OP.overload(x.roll(64, 1), element_format), expected, case)), "other groups"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    x = torch.ones(3, 256, dtype=torch.bfloat16)
    result = group_quant(x, element_format)
    assert result.layout == GROUP_MAJOR_SCALES
    assert result.values.shape == (3, 256) and result.scales.shape == (2, 3)
    with pytest.raises(ValueError, match=r"expected torch.bfloat16"):
        group_quant(x.float(), element_format)
    with pytest.raises(ValueError, match=r"64 columns, expected a multiple of 128"):
        group_quant(x[:, :64], element_format)
