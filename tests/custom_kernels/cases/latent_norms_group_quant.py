"""Cases of `latent_norms_group_quant`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.latent_norms_group_quant import reference
from tests.custom_kernels.cases.activations import poisoned_row, quantized, random_rows, rounded, special_rows
from tests.custom_kernels.cases.case import Case


def cases(element_format: ElementFormat) -> list[Case]:
    generator = torch.Generator().manual_seed(3)

    def case(label, rows, query, latent, x=None, rope=64, epsilons=(1e-6, 1e-5)):
        x = random_rows(generator, (rows, query + latent + rope), element_format) if x is None else x
        weights = [(1 + 0.3 * torch.randn(n, generator=generator)).to(x.dtype) for n in (query, latent)]
        arguments = (x, *weights, *epsilons, element_format.name)
        compare = quantized(element_format, False, reference(*arguments)[0])
        return Case(label, arguments, (*compare, rounded(element_format)))

    result = [
        case("one row", 1, 128, 64, rope=16),
        case("no rope columns", 2, 128, 128, rope=0),
        case("latent wider than the query", 3, 128, 512),
        case("latent of 8 columns", 2, 256, 8, rope=8),
        case("latent of 136 columns", 2, 256, 136),
        case("63 rows", 63, 128, 64),
        case("65 rows", 65, 256, 64),
        case("epsilons far apart", 2, 256, 128, epsilons=(10.0, 1e-6)),
        case("query beyond one chunk", 2, 2176, 64),
        case("NaN and infinity", 2, 256, 192, poisoned_row(generator, 512, element_format)),
        case("GLM-5.1", 4, 2048, 512),
        case("DeepSeek-V3.2", 2, 1536, 512),
    ]
    for label, row in special_rows(generator, 512, element_format).items():
        result.append(case(label, 1, 256, 192, row))
    return result
