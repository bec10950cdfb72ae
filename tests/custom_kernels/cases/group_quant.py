"""Cases of `group_quant`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.group_quant import reference
from tests.custom_kernels.cases.activations import (
    halves_between_codes,
    poisoned_row,
    quantized,
    random_rows,
    special_rows,
)
from tests.custom_kernels.cases.case import Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(25)

    def case(label, x):
        arguments = (x, element_format.name)
        return Case(label, arguments, quantized(element_format, True, reference(*arguments)[0]))

    shapes = [(1, 128), (3, 384), (17, 128), (63, 256), (65, 256), (2, 2304)]
    result = [case(f"{s[0]} rows of {s[1]}", random_rows(generator, s, element_format)) for s in shapes]
    for label, row in special_rows(generator, 256, element_format).items():
        result.append(case(label, row))
    result.append(case("halves between codes", halves_between_codes(256, element_format)))
    result.append(case("NaN and infinity", poisoned_row(generator, 512, element_format)))
    result.append(case("GLM-5.1 rank, 4 rows of 9 experts", random_rows(generator, (36, 256), element_format)))
    return result
