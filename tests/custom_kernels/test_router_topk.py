"""`router_topk` against a loop over rows."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN
from predecode.custom_kernels.router_topk import router_topk
from tests.custom_kernels.cases.case import mismatch
from tests.custom_kernels.cases.router_topk import cases

CASES = cases(E4M3FN)


def brute(logits, bias, topk, groups, topk_groups, renormalize, scaling, shared):
    """Selection by repeated search for the best, row by row; NaN is worse than everything."""
    rows, experts = logits.shape
    ids = np.zeros((rows, topk + shared), np.int32)
    weights = np.ones((rows, topk + shared), np.float32)
    size = experts // groups
    for t in range(rows):
        scores = (1 / (1 + torch.exp(-logits[t]))).numpy()
        biased = [
            float("-inf") if np.isnan(s) else float(np.float32(s + b))
            for s, b in zip(scores, bias.numpy(), strict=True)
        ]
        by_group = [sorted(biased[g * size : (g + 1) * size], reverse=True) for g in range(groups)]
        totals = [float(np.float32(sum(b[:2]))) if groups > 1 else 0.0 for b in by_group]
        kept = sorted(range(groups), key=lambda g: (-totals[g], g))[:topk_groups]
        allowed = [biased[e] if e // size in kept else float("-inf") for e in range(experts)]
        order = sorted(range(experts), key=lambda e: (-allowed[e], e))[:topk]
        chosen = scores[order].astype(np.float64)
        if renormalize:
            chosen = chosen / chosen.sum()
        ids[t] = order + [experts + s for s in range(shared)]
        weights[t, :topk] = chosen * scaling
    return torch.from_numpy(ids), torch.from_numpy(weights)


@pytest.mark.parametrize("case", CASES, ids=[c.label for c in CASES])
def test_equals_the_loop(case):
    given, expected = torch.ops.predecode.router_topk(*case.arguments), brute(*case.arguments)
    for name, g, e, rule in zip(("ids", "weights"), given, expected, case.compare, strict=True):
        assert mismatch(g, e, rule) is None, name


def test_the_comparison_notices_a_wrong_tie_and_a_forgotten_bias():
    ties = next(c for c in CASES if c.label == "equal scores")
    ids, _ = torch.ops.predecode.router_topk(*ties.arguments)
    assert mismatch(ids.flip(1), brute(*ties.arguments)[0], ties.compare[0])
    biased = next(c for c in CASES if c.label == "bias decides")
    logits, bias, *settings = biased.arguments
    ids, _ = torch.ops.predecode.router_topk(logits, torch.zeros_like(bias), *settings)
    assert mismatch(ids, brute(*biased.arguments)[0], biased.compare[0])


def test_ids_stay_in_range_whatever_the_logits_hold():
    logits = torch.full((2, 16), float("nan"))
    ids, weights = torch.ops.predecode.router_topk(logits, torch.zeros(16), 4, 4, 2, True, 2.5, 1)
    assert ids.min() >= 0 and ids.max() <= 16
    assert weights[:, :4].isnan().all()


def test_opcheck():
    for case in CASES[:2]:
        torch.library.opcheck(torch.ops.predecode.router_topk.default, case.arguments)


def test_wrapper_refuses_impossible_choices():
    logits, bias = torch.zeros(1, 8), torch.zeros(8)
    settings = dict(topk=2, groups=4, topk_groups=2, renormalize=True, scaling=1.0, shared_experts=1)
    assert router_topk(logits, bias, **settings)[0].shape == (1, 3)
    with pytest.raises(ValueError, match="cannot be chosen"):
        router_topk(logits, bias, **settings | {"topk": 5})
    with pytest.raises(ValueError, match="cannot be chosen"):
        router_topk(logits, bias, **settings | {"groups": 3})
    with pytest.raises(ValueError, match="expected float32"):
        router_topk(logits.bfloat16(), bias, **settings)
    with pytest.raises(ValueError, match="correction_bias is"):
        router_topk(logits, bias[:4], **settings)
