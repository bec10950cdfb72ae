"""Cases of `flatten_group_quant`."""

import torch

from predecode.custom_kernels.flatten_group_quant import reference
from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.activations import (
    halves_between_codes,
    poisoned_row,
    quantized,
    random_rows,
    special_rows,
)
from tests.custom_kernels.cases.case import Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(4)

    def case(label, x):
        arguments = (x, element_format.name)
        return Case(label, arguments, quantized(element_format, True, reference(*arguments)[0]))

    shapes = [(1, 1, 128), (1, 2, 128), (3, 5, 384), (64, 2, 128), (65, 2, 256), (1, 17, 128), (4, 8, 256)]
    result = [case(f"{'x'.join(map(str, s))}", random_rows(generator, s, element_format)) for s in shapes]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, row.reshape(1, 2, 256)))
    result.append(case("halves between codes", halves_between_codes(512, element_format).reshape(1, 4, 128)))
    result.append(case("NaN and infinity", poisoned_row(generator, 512, element_format).reshape(2, 4, 128)))
    return result
