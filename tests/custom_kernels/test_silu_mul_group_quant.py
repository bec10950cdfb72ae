"""`silu_mul_group_quant` against a loop over rows and groups."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES
from predecode.custom_kernels.silu_mul_group_quant import OP, silu_mul_group_quant
from tests.custom_kernels.cases.case import mismatches
from tests.custom_kernels.cases.silu_mul_group_quant import cases
from tests.custom_kernels.reference_quantize import quantize_rows

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x, element_format, round_product=True):
    gate, up = np.split(x.double().numpy(), 2, axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        product = torch.from_numpy((gate / (1 + np.exp(-gate)) * up).astype(np.float32))
    if round_product:
        product = product.to(x.dtype).float()
    return quantize_rows(product.numpy(), ELEMENT_FORMATS[element_format])


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatches(OP.overload(*case.arguments), brute(*case.arguments), case) == [None, None]


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_definitions_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "64 rows of 512")
    x, _ = case.arguments
    expected = brute(*case.arguments)
    gate, up = x.chunk(2, dim=1)
    assert any(mismatches(OP.overload(torch.cat((up, gate), 1), element_format), expected, case)), "up before gate"
    interleaved = torch.stack((gate, up), 2).reshape(x.shape)
    assert any(mismatches(OP.overload(interleaved, element_format), expected, case)), "gate and up interleaved"
    assert any(mismatches(brute(x, element_format, round_product=False), expected, case)), "product not rounded"


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_tells_the_layout_and_refuses_other_shapes():
    element_format = ELEMENT_FORMATS["e4m3fn"]
    x = torch.ones(3, 512, dtype=torch.bfloat16)
    result = silu_mul_group_quant(x, element_format)
    assert result.layout == GROUP_MAJOR_SCALES
    assert result.values.shape == (3, 256) and result.scales.shape == (2, 3)
    with pytest.raises(ValueError, match=r"expected torch.bfloat16"):
        silu_mul_group_quant(x.float(), element_format)
    with pytest.raises(ValueError, match=r"64 columns, expected a multiple of 128"):
        silu_mul_group_quant(x[:, :128], element_format)
