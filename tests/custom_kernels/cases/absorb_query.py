"""Cases of `absorb_query`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.kv_b import SIZES, close, kv_b, magnitudes


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(17)
    compare = (close(element_format),)
    made = []
    for label, rows, heads, nope, rope, v, latent in SIZES:
        weight, scales = kv_b(generator, heads, nope + v, latent, element_format)
        q = torch.randn(rows, heads * (nope + rope), generator=generator)

        def case(label, x, weight=weight, scales=scales, rope=rope):
            return Case(label, (x.to(element_format.activation_dtype), weight, scales, rope), compare)

        made.append(case(label, q))
        if rows == 1:
            made += magnitudes(q, case)
    return made
