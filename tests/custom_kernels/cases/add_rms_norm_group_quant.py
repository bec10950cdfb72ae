"""Cases of `add_rms_norm_group_quant`."""

import torch

from predecode.custom_kernels.add_rms_norm_group_quant import reference
from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.activations import poisoned_row, quantized, random_rows, rounded, special_rows
from tests.custom_kernels.cases.case import EXACT, Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(2)

    def case(label, x, residual=None):
        weight = (1 + 0.3 * torch.randn(x.shape[1], generator=generator)).to(x.dtype)
        if residual is None:
            residual = torch.randn(x.shape, generator=generator).to(x.dtype)
        arguments = (x, residual, weight, 1e-5, element_format.name)
        values, _, _, total = reference(*arguments)
        compare = quantized(element_format, False, values)
        # One addition and one rounding leave no freedom, but NaN has several codes.
        sums = EXACT if not total.isnan().any() else rounded(element_format)
        return Case(label, arguments, (*compare, rounded(element_format), sums))

    shapes = [(1, 128), (2, 256), (63, 128), (64, 384), (65, 256), (3, 2048), (2, 2176), (2, 4096)]
    result = [case(f"{s[0]} rows of {s[1]}", random_rows(generator, s, element_format)) for s in shapes]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, row, torch.zeros_like(row)))
    row = random_rows(generator, (1, 256), element_format)
    result.append(case("sums that cancel", row, -row))
    # The sums' low bits are lost in bfloat16: a norm of the rounded sum is off by many codes' worth.
    result.append(case("sums beyond bf16", torch.full_like(row, 1.0), torch.full_like(row, 2.0**-9)))
    result.append(case("NaN and infinity", poisoned_row(generator, 512, element_format)))
    result.append(case("GLM-5.1", random_rows(generator, (4, 6144), element_format)))
    result.append(case("DeepSeek-V3.2", random_rows(generator, (2, 7168), element_format)))
    return result
