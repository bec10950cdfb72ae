"""Cases of `add_normed_linear_bf16`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.normed_products import float_weight, normed_rows, rounded_rows


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(64)
    made = []
    for label, x, residual, norm, n in normed_rows(generator, element_format, with_residual=True):
        rows, weight = x[:, : len(norm)].contiguous(), float_weight(generator, n, norm)
        made.append(Case(label, (rows, residual, norm, 1e-5, weight), (rounded_rows(rows, residual, norm, weight),)))
    return made
