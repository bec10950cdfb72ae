"""`linear_bf16` against a float64 product, and what its wrapper refuses."""

import pytest
import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS
from predecode.custom_kernels.linear_bf16 import OP, linear_bf16
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.linear_bf16 import cases

ALL = [pytest.param(c, id=f"{n}-{c.label}") for n, f in sorted(ELEMENT_FORMATS.items()) for c in cases(f)]


def brute(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    columns = (x[:, k, None].double() * weight[None, :, k].double() for k in range(x.shape[1]))
    return sum(columns).float()


@pytest.mark.parametrize("case", ALL)
def test_equals_the_sum_of_the_columns(case):
    assert mismatch(OP.overload(*case.arguments), brute(*case.arguments), case.compare[0]) is None


def test_a_swapped_column_is_noticed():
    case = next(c for c in cases(ELEMENT_FORMATS["e4m3fn"]) if c.label == "17 rows")
    x, weight = case.arguments
    swapped = weight.clone()
    swapped[:, [7, 8]] = weight[:, [8, 7]]
    assert mismatch(OP.overload(x, swapped), brute(x, weight), case.compare[0])


def test_opcheck():
    torch.library.opcheck(OP.overload, cases(ELEMENT_FORMATS["e4m3fn"])[2].arguments)


def test_wrapper_refuses_other_dtypes_and_shapes():
    x, weight = torch.zeros(3, 64, dtype=torch.bfloat16), torch.zeros(5, 64, dtype=torch.bfloat16)
    assert linear_bf16(x, weight).shape == (3, 5)
    for wrong in ((x.half(), weight.half()), (x, weight.float()), (x[:, :32], weight), (x[:, :48], weight[:, :48])):
        with pytest.raises(TypeError, match=r"linear_bf16: x is .*expected \[T, K\] and \[N, K\]"):
            linear_bf16(*wrong)
    with pytest.raises(TypeError, match="linear_bf16"):
        linear_bf16(x[0], weight)
