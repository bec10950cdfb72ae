"""Cases of `add_normed_gemm_fp8_blockscale`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.block_scaled import close, tiled_weight
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.normed_products import normed_rows


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(62)
    made = []
    for label, x, residual, norm, n in normed_rows(generator, element_format, with_residual=True):
        weight = tiled_weight(generator, (n, len(norm)), element_format)
        rows = x[:, : len(norm)].contiguous()
        made.append(Case(label, (rows, residual, norm, 1e-5, *weight), (close(element_format),)))
    return made
