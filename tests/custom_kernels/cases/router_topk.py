"""Cases of `router_topk`."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import EXACT, Case, Comparison

# (topk, groups, topk_groups, renormalize, scaling, shared_experts)
GLM = (8, 1, 1, True, 2.5, 1)
DEEPSEEK = (8, 8, 4, True, 2.5, 1)
SMALL = (2, 4, 2, True, 2.5, 2)
PLAIN = (3, 1, 1, False, 1.0, 0)


def cases(element_format: ElementFormat) -> list[Case]:
    """The same for every element format: scores are float32."""
    generator = torch.Generator().manual_seed(19)
    compare = (EXACT, Comparison(relative=1e-6))

    def case(label, logits, bias, settings):
        return Case(label, (logits, bias, *settings), compare)

    def logits(rows, experts):
        return torch.randn(rows, experts, generator=generator) * 2

    def bias(experts):
        return torch.randn(experts, generator=generator) * 0.1

    ties = torch.tensor([0.0, 1.0, -1.0, 0.5]).repeat(3, 64)
    poisoned = logits(3, 16)
    poisoned[1, 3], poisoned[1, 4], poisoned[2, :] = float("nan"), float("inf"), float("nan")
    # Too few numbers to choose from: the rest are the lowest ids, whether their groups are left out or not. (A group
    # with one number counts as one with none.)
    sparse = torch.full((3, 16), float("nan"))
    sparse[0, 9], sparse[1, 2], sparse[2, 13:15] = 1.0, 1.0, 1.0
    return [
        case("one row", logits(1, 8), bias(8), SMALL),
        case("no renormalisation, no shared expert", logits(5, 8), bias(8), PLAIN),
        case("GLM-5.1, 65 rows", logits(65, 256), bias(256), GLM),
        case("DeepSeek-V3.2, 4 rows", logits(4, 256), bias(256), DEEPSEEK),
        case("equal scores", ties, torch.zeros(256), DEEPSEEK),
        case("all equal", torch.zeros(2, 256), torch.zeros(256), GLM),
        case("bias decides", torch.zeros(2, 8), torch.arange(8.0) / 8, PLAIN),
        case("negative bias of every expert", logits(4, 8), bias(8) - 5.0, SMALL),
        case("saturated scores", logits(4, 16) * 100, bias(16), SMALL),
        case("NaN and infinity", poisoned, bias(16), SMALL),
        case("too few numbers in the groups", sparse, bias(16), (4, 4, 2, False, 1.0, 1)),
        case("one expert of two groups", logits(17, 16), bias(16), (1, 4, 2, True, 2.5, 0)),
        case("groups of one expert", logits(5, 8), bias(8), (3, 8, 4, True, 1.0, 1)),
        case("40 experts", logits(3, 40), bias(40), (8, 1, 1, True, 2.5, 1)),
        case("384 experts", logits(5, 384), bias(384), (8, 1, 1, True, 2.5, 1)),
    ]
