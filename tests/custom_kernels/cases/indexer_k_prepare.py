"""Cases of `indexer_k_prepare`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.activations import rounded
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.rotation import scattered_positions, table


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(8)
    dtype = element_format.activation_dtype
    # Subtracting the mean loses digits where it is much larger than the deviations.
    rule = rounded(element_format) if element_format.is_quantized else Comparison(relative=1e-5)

    def case(label, rows, layout="interleaved", factor=1.0, offset=0.0, limit=512):
        arguments = (
            (torch.randn(rows, 128, generator=generator) * factor + offset).to(dtype),
            torch.randn(128, generator=generator).to(dtype),
            torch.randn(128, generator=generator).to(dtype),
            1e-6,
            table(limit),
            scattered_positions(generator, rows, limit),
            layout,
        )
        return Case(label, arguments, (rule,))

    return [
        case("one row", 1),
        case("GLM-5.1, 64 rows", 64, limit=4096),
        case("DeepSeek-V3.2", 4, layout="halves"),
        case("63 rows, halves", 63, layout="halves"),
        case("65 rows", 65),
        case("zeros", 2, factor=0.0),
        case("a constant row", 2, factor=0.0, offset=3.0),
        case("far from zero", 3, offset=40.0),
        case("tiny", 2, factor=1e-10),
        case("huge", 2, factor=1e12),
    ]
