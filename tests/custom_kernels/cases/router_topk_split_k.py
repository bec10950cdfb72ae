"""Cases of `router_topk_split_k`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.split_k import SLICES, join_partials
from tests.custom_kernels.cases.case import EXACT, Case, Comparison
from tests.custom_kernels.cases.router_topk import DEEPSEEK, GLM, PLAIN, SMALL


def cases(element_format: ElementFormat) -> list[Case]:
    """The same for every element format: sums are float32."""
    generator = torch.Generator().manual_seed(66)
    compare = (EXACT, Comparison(relative=1e-5))

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    def case(label, terms, squares, settings, epsilon=1e-5):
        """``terms`` [slices, T, E], ``squares`` [slices, T]."""
        bias = random(terms.shape[2]) * 0.1
        return Case(label, (join_partials(terms, squares), bias, epsilon, *settings), compare)

    def rows(label, count, experts, settings, size=1.0):
        squares = random(SLICES, count).square() * (size * size / SLICES)
        return case(label, random(SLICES, count, experts) * (size / 4), squares, settings)

    poisoned = random(SLICES, 3, 16)
    poisoned[7, 1, 3], poisoned[31, 1, 4], poisoned[0, 2] = float("nan"), float("inf"), float("nan")
    equal = torch.tensor([0.0, 1.0, -1.0, 0.5]).repeat(SLICES, 3, 64)
    # What one slice alone tells, the first and the last.
    alone = torch.zeros(SLICES, 2, 8)
    alone[0, 0], alone[-1, 1] = random(8), random(8)
    sizes = torch.tensor([1.0, float("nan")]).repeat(SLICES, 1)
    return [
        rows("one row", 1, 8, SMALL),
        rows("no renormalisation, no shared expert", 5, 8, PLAIN),
        rows("GLM-5.1, 17 rows", 17, 256, GLM),
        rows("GLM-5.1, 63 rows", 63, 256, GLM),
        rows("GLM-5.1, 64 rows", 64, 256, GLM),
        rows("DeepSeek-V3.2, 32 rows", 32, 256, DEEPSEEK),
        rows("40 experts", 3, 40, GLM),
        rows("384 experts", 5, 384, GLM),
        rows("small rows, which epsilon outweighs", 4, 16, SMALL, size=1e-3),
        rows("large rows", 4, 16, SMALL, size=1e15),
        case("rows of zeros", torch.zeros(SLICES, 2, 16), torch.zeros(SLICES, 2), SMALL),
        case("one slice alone", alone, torch.full((SLICES, 2), 1 / SLICES), PLAIN),
        case("equal scores", equal, torch.ones(SLICES, 3), DEEPSEEK),
        case("NaN and infinity", poisoned, torch.ones(SLICES, 3), SMALL),
        case("a row of unknown size", random(SLICES, 2, 16), sizes, SMALL),
    ]
