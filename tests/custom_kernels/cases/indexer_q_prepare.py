"""Cases of `indexer_q_prepare`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Case, Comparison
from tests.custom_kernels.cases.rotation import scattered_positions, table


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(11)
    # Only the order of the Hadamard sums may differ; it is seen where a sum lies next to a rounding boundary.
    values_rule = Comparison(steps=1, fraction=2e-3) if element_format.is_quantized else Comparison(relative=2e-6)

    def case(label, rows, heads=32, layout="interleaved", factor=1.0, limit=512):
        q = torch.randn(rows, heads * 128, generator=generator) * factor
        arguments = (
            q.to(element_format.activation_dtype),
            torch.randn(rows, heads, generator=generator),
            table(limit),
            scattered_positions(generator, rows, limit),
            layout,
            element_format.name,
        )
        return Case(label, arguments, (values_rule, Comparison(relative=1e-6)))

    return [
        case("GLM-5.1, one row", 1),
        case("GLM-5.1, 4 rows", 4, limit=4096),
        case("DeepSeek-V3.2", 3, heads=64, layout="halves"),
        case("one head", 5, heads=1),
        case("three heads, halves", 7, heads=3, layout="halves"),
        case("63 rows", 63, heads=2),
        case("65 rows", 65, heads=2, layout="halves"),
        case("zeros", 2, heads=4, factor=0.0),
        case("below the scale's floor", 2, heads=4, factor=1e-6),
        case("huge", 2, heads=4, factor=1e20),
    ]
