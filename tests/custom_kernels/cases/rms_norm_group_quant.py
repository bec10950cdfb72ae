"""Cases of `rms_norm_group_quant`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.rms_norm_group_quant import reference
from tests.custom_kernels.cases.activations import poisoned_row, quantized, random_rows, rounded, special_rows
from tests.custom_kernels.cases.case import Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(1)

    def case(label, x, epsilon=1e-5):
        weight = (1 + 0.3 * torch.randn(x.shape[1], generator=generator)).to(x.dtype)
        arguments = (x, weight, epsilon, element_format.name)
        compare = quantized(element_format, False, reference(*arguments)[0])
        return Case(label, arguments, (*compare, rounded(element_format)))

    shapes = [(1, 128), (2, 256), (63, 128), (64, 384), (65, 256), (3, 2048), (2, 2176), (2, 4096)]
    result = [case(f"{s[0]} rows of {s[1]}", random_rows(generator, s, element_format)) for s in shapes]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, row))
    result.append(case("a large epsilon", random_rows(generator, (2, 256), element_format), epsilon=10.0))
    result.append(case("NaN and infinity", poisoned_row(generator, 512, element_format)))
    result.append(case("GLM-5.1", random_rows(generator, (4, 6144), element_format)))
    result.append(case("DeepSeek-V3.2", random_rows(generator, (2, 7168), element_format), epsilon=1e-6))
    return result
