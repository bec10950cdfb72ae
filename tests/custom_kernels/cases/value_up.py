"""Cases of `value_up`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.kv_b import SIZES, close, kv_b, magnitudes


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(18)
    compare = (close(element_format),)
    made = []
    for label, rows, heads, nope, _, v, latent in SIZES:
        weight, scales = kv_b(generator, heads, nope + v, latent, element_format)
        attention = torch.randn(rows, heads, latent, generator=generator)

        def case(label, x, weight=weight, scales=scales, nope=nope):
            return Case(label, (x.to(element_format.activation_dtype), weight, scales, nope), compare)

        made.append(case(label, attention))
        if rows == 1:
            made += magnitudes(attention, case)
    return made
