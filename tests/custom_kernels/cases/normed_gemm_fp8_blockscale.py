"""Cases of `normed_gemm_fp8_blockscale`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.block_scaled import close, tiled_weight
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.normed_products import normed_rows


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(61)
    return [
        Case(label, (x, norm, 1e-5, *tiled_weight(generator, (n, len(norm)), element_format)), (close(element_format),))
        for label, x, _, norm, n in normed_rows(generator, element_format, with_residual=False)
    ]
