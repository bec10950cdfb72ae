"""`gemm_fp8_blockscale` against a float64 product written from the byte layouts."""

import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.gemm_fp8_blockscale import OP, gemm_fp8_blockscale
from predecode.custom_kernels.layouts import (
    GROUP_MAJOR_SCALES,
    ROW_MAJOR,
    ROW_MAJOR_SCALES,
    TILED_16X16,
    LayoutError,
)
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.gemm_fp8_blockscale import cases
from tests.custom_kernels.reference_formats import block_scaled_product

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(values, scales, weight, weight_scales) -> torch.Tensor:
    total = torch.from_numpy(block_scaled_product(values, scales, weight, weight_scales))
    return total.to(torch.bfloat16 if values.dtype.itemsize == 1 else torch.float32)


@pytest.mark.parametrize("case", ALL)
def test_equals_the_loop(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_other_layouts_are_noticed(element_format):
    case = next(c for c in cases(ELEMENT_FORMATS[element_format]) if c.label == "last scale block half full")
    values, scales, weight, weight_scales = case.arguments
    expected = brute(*case.arguments)
    other_format = torch.float8_e4m3fnuz if element_format == "e4m3fn" else torch.float8_e4m3fn
    wrong = {
        "tiles transposed": (values, scales, weight.transpose(2, 3).contiguous(), weight_scales),
        "weight not tiled": (values, scales, TILED_16X16.unpack(weight).reshape(weight.shape), weight_scales),
        "row-major scales": (values, scales.T.reshape(scales.shape), weight, weight_scales),
        "weight scales of the next block row": (values, scales, weight, weight_scales.roll(1, 0)),
        "weight scales of the next block column": (values, scales, weight, weight_scales.roll(1, 1)),
        "weight in the other FP8 format": (values, scales, weight.view(other_format), weight_scales),
    }
    for label, arguments in wrong.items():
        assert mismatch(OP.overload(*arguments), expected, case.compare[0]), label


def test_opcheck():
    # float32: opcheck itself cannot compare FP8 tensors.
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["float32"])[0].arguments)


def test_wrapper_refuses_other_layouts_and_shapes():
    values, scales, weight, weight_scales = cases(ELEMENT_FORMATS["e4m3fn"])[1].arguments
    x = QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
    w = BlockScaledWeight(weight, weight_scales, TILED_16X16)
    assert gemm_fp8_blockscale(x, w).shape == (3, 192)
    with pytest.raises(LayoutError, match="row-major scales"):
        gemm_fp8_blockscale(QuantizedActivation(values, scales.T, ROW_MAJOR_SCALES), w)
    with pytest.raises(LayoutError, match=r"tiled-16x16.*row-major"):
        gemm_fp8_blockscale(x, BlockScaledWeight(weight, weight_scales, ROW_MAJOR))
    with pytest.raises(ValueError, match="one scale per"):
        gemm_fp8_blockscale(x, BlockScaledWeight(weight, weight_scales[:1], TILED_16X16))
    with pytest.raises(ValueError, match="other arguments ask"):
        gemm_fp8_blockscale(QuantizedActivation(values[:, :128], scales[:1], GROUP_MAJOR_SCALES), w)
    with pytest.raises(TypeError, match="differ"):
        other = BlockScaledWeight(weight.view(torch.float8_e4m3fnuz), weight_scales, TILED_16X16)
        gemm_fp8_blockscale(x, other)
