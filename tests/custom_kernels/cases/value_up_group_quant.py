"""Cases of `value_up_group_quant`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.value_up_group_quant import reference
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.kv_b import kv_b


def close(element_format: ElementFormat, expected: torch.Tensor) -> tuple[Comparison, Comparison]:
    """The order of float32 sums, and the roundings after them. NaN has several codes: they are left out.

    The smallest codes are closer together than what a rounding of an input to float16 moves their sum by.
    """
    region = ~expected.float().isnan()
    if element_format.is_quantized:
        return Comparison(steps=8, fraction=0.02, region=region), Comparison(relative=2.0**-7)
    return Comparison(relative=1e-5, absolute=1e-30, region=region), Comparison()


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(18)
    dtype = torch.float16 if element_format.is_quantized else torch.float32

    def case(label, rows, heads, nope, v, latent, splits, factor=1.0, spread=1.0, parts=None, log_sums=None):
        weight, scales = kv_b(generator, heads, nope + v, latent, element_format)
        if parts is None:
            parts = (torch.randn(rows, heads, splits, latent, generator=generator) * factor).to(dtype)
        if log_sums is None:
            log_sums = torch.randn(rows, heads, splits, generator=generator) * spread
        arguments = (parts, log_sums, weight, scales, nope)
        return Case(label, arguments, close(element_format, reference(*arguments)[0]))

    empty = torch.randn(3, 2, 4, generator=generator)
    empty[0] = float("-inf")  # a row without tokens
    empty[1, :, 1:] = float("-inf")
    empty[2, 1, 0] = float("-inf")
    without = torch.randn(3, 2, 4, 128, generator=generator).to(dtype)
    without[empty == float("-inf")] = 0
    poisoned = torch.randn(2, 2, 3, generator=generator)
    poisoned[0, 1, 2] = float("nan")
    with_nan = torch.randn(2, 2, 3, 128, generator=generator).to(dtype)
    with_nan[0, 1, 2] = float("nan")
    return [
        case("one row, one part", 1, 4, 64, 128, 128, 1),
        case("one row, 2 parts", 1, 2, 64, 128, 64, 2),
        case("blocks that straddle heads", 5, 3, 80, 128, 192, 3),
        case("no nope dims", 3, 2, 0, 128, 128, 5),
        case("17 rows, 7 parts", 17, 8, 16, 256, 64, 7),
        case("64 rows", 64, 2, 64, 128, 128, 4),
        case("65 rows of 16 heads", 65, 16, 16, 128, 64, 1),
        case("33 parts", 2, 2, 64, 128, 512, 33),
        case("rows and parts without tokens", 3, 2, 64, 128, 128, 4, parts=without, log_sums=empty),
        case("NaN", 2, 2, 64, 128, 128, 3, parts=with_nan, log_sums=poisoned),
        case("log sums far apart", 4, 2, 64, 128, 128, 6, spread=300.0),
        case("zeros", 2, 2, 64, 128, 128, 2, factor=0.0),
        case("huge", 2, 2, 64, 128, 128, 2, factor=1e4),
        case("tiny", 2, 2, 64, 128, 128, 2, factor=1e-3),
        case("GLM-5.1 rank, 1 row", 1, 8, 192, 256, 512, 32),
        case("GLM-5.1 rank", 4, 8, 192, 256, 512, 32),
        case("DeepSeek-V3.2 rank", 2, 16, 128, 128, 512, 32),
    ]
