"""Cases of `silu_mul_group_quant`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.silu_mul_group_quant import reference
from tests.custom_kernels.cases.activations import poisoned_row, quantized, random_rows, special_rows
from tests.custom_kernels.cases.case import Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(5)

    def case(label, x):
        arguments = (x, element_format.name)
        return Case(label, arguments, quantized(element_format, False, reference(*arguments)[0]))

    shapes = [(1, 256), (1, 512), (3, 768), (63, 256), (64, 512), (65, 256), (2, 4608)]
    result = [case(f"{s[0]} rows of {s[1]}", random_rows(generator, s, element_format)) for s in shapes]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, row))
    gates = torch.linspace(-120, 120, 256)
    both = torch.cat((gates, torch.full((256,), 1.0)))[None].to(element_format.activation_dtype)
    result.append(case("gates from -120 to 120", both))
    result.append(case("NaN and infinity", poisoned_row(generator, 1024, element_format)))
    result.append(case("GLM-5.1, 4 rows of 9 experts", random_rows(generator, (36, 512), element_format)))
    return result
