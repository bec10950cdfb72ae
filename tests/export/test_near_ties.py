"""What counts as a near tie, in the ops' own terms, and that a run with one is refused."""

import pytest
import torch

from predecode.custom_kernels.router_topk import router_topk
from predecode.custom_kernels.topk_slots import topk_slots
from predecode.export.near_ties import Margins, NearTie, RefuseNearTies, expert_margins, token_margins

ZERO_BIAS = torch.zeros(8)
INFINITE = float("inf")


def logit(*scores: float) -> torch.Tensor:
    return torch.logit(torch.tensor([scores]))


def test_experts_differ_by_the_score_where_the_choice_ends():
    scores = logit(0.9, 0.1, 0.5, 0.48, 0.2, 0.3, 0.4, 0.05)
    assert expert_margins(scores, ZERO_BIAS, 2, 1, 1).item() == pytest.approx(0.02, rel=1e-3)
    assert expert_margins(scores, ZERO_BIAS, 1, 1, 1).item() == pytest.approx(0.4, rel=1e-3)
    bias = torch.tensor([0, 0, 0, 0.3, 0, 0, 0, 0])
    assert expert_margins(scores, bias, 2, 1, 1).item() == pytest.approx(0.28, rel=1e-3)


def test_all_experts_leave_no_choice():
    assert expert_margins(torch.randn(3, 8), ZERO_BIAS, 8, 1, 1).tolist() == [INFINITE] * 3


def test_groups_of_experts_may_tie_too():
    """Groups of two, of which two are kept: their sums are 1.0, 0.98, 0.7 and 0.2."""
    scores = logit(0.9, 0.1, 0.5, 0.48, 0.4, 0.3, 0.15, 0.05)
    assert expert_margins(scores, ZERO_BIAS, 1, 4, 1).item() == pytest.approx(0.02, rel=1e-3)
    assert expert_margins(scores, ZERO_BIAS, 1, 4, 2).item() == pytest.approx(0.28, rel=1e-3)
    # With three groups 0.5 and 0.48 are in, with 0.48 the last: 0.4 of the third group is next.
    assert expert_margins(scores, ZERO_BIAS, 3, 4, 3).item() == pytest.approx(0.08, rel=1e-3)


def tokens(scores, length, topk, identities):
    logits = torch.full((1, 128), float("-inf"))
    logits[0, : len(scores)] = torch.tensor(scores)
    table = torch.tensor([[1, 0]], dtype=torch.int32)
    owners = torch.arange(1000, 1128)
    owners[64 : 64 + len(identities)] = torch.tensor(identities)
    return token_margins(logits, torch.tensor([length], dtype=torch.int32), table, topk, owners).item()


def test_tokens_differ_by_the_score_of_another_token():
    scores = [10.0, 7.0, 7.5, -20.0, 1.0, 8.0]
    assert tokens(scores, 6, 2, range(6)) == pytest.approx(0.5 / 20)
    assert tokens(scores, 6, 5, range(6)) == pytest.approx(6 / 20)
    # A token after the last one does not count, nor does one that is not there.
    assert tokens(scores, 5, 2, range(6)) == pytest.approx(0.5 / 20)
    assert tokens(scores, 3, 2, range(6)) == pytest.approx(0.5 / 10)


def test_copies_of_a_token_do_not_tie():
    scores = [10.0, 7.0, 7.0, 7.0, 1.0, 6.0]
    assert tokens(scores, 6, 2, [1, 2, 2, 2, 3, 4]) == pytest.approx(0.1)
    assert tokens(scores, 6, 2, [1, 2, 5, 2, 3, 4]) == 0.0


def test_short_rows_choose_nothing():
    assert tokens([1.0, 1.0, 1.0], 3, 3, range(3)) == INFINITE


MARGINS = Margins(experts=0.025, tokens=0.03)


def test_the_ops_are_refused_under_the_mode():
    hidden, scale = torch.randn(2, 128, dtype=torch.bfloat16), torch.ones(128, dtype=torch.bfloat16)
    near = torch.cat([logit(0.9, 0.5, 0.47, 0.1), logit(0.9, 0.5, 0.2, 0.1)])
    options = {
        "topk": 2, "groups": 1, "topk_groups": 1, "renormalize": False, "scaling": 1.0, "shared_experts": 0
    }  # fmt: skip
    with RefuseNearTies(MARGINS, torch.arange(64)), pytest.raises(NearTie) as caught:
        torch.ops.predecode.rms_norm_group_quant(hidden, scale, 1e-5, "e4m3fn")
        router_topk(near, torch.zeros(4), **options)
    assert caught.value.rows.tolist() == [True, False]
    with RefuseNearTies(MARGINS, torch.arange(64)):
        torch.ops.predecode.rms_norm_group_quant(hidden, scale, 1e-5, "e4m3fn")
        router_topk(near[1:], torch.zeros(4), **options)


def test_margins_grow_with_the_halves():
    hidden, scale = torch.randn(1, 128, dtype=torch.bfloat16), torch.ones(128, dtype=torch.bfloat16)
    logits = torch.zeros(1, 64)
    logits[0, :3] = torch.tensor([10.0, 5.0, 4.2])
    given = logits, torch.tensor([3], dtype=torch.int32), torch.zeros(1, 1, dtype=torch.int32), 2
    for halves, refused in ((1, False), (2, True)):
        with RefuseNearTies(MARGINS, torch.arange(64)):
            for _ in range(halves):
                torch.ops.predecode.rms_norm_group_quant(hidden, scale, 1e-5, "e4m3fn")
            if refused:
                with pytest.raises(NearTie):
                    topk_slots(*given)
            else:
                topk_slots(*given)
