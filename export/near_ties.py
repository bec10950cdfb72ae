"""Choices of the model that rounding could turn: which experts a row is routed to, which tokens it attends to.

Two correct runs differ by rounding. Where two scores nearly tie, they may choose differently, and what follows is
another row altogether. A golden is made of rows whose choices have a margin.
"""

from dataclasses import dataclass

import torch
from torch.overrides import TorchFunctionMode

from predecode.custom_kernels.layouts import PAGE_TOKENS

_FIRST_OF_HALF = (torch.ops.predecode.rms_norm_group_quant, torch.ops.predecode.add_rms_norm_group_quant)


class NearTie(Exception):
    """``rows`` bool [T]: those with a choice that rounding could turn."""

    def __init__(self, rows: torch.Tensor):
        super().__init__(f"{int(rows.sum())} rows have a near tie")
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Margins:
    """How far apart scores must be where a choice ends: that much for each half of a layer so far, and once more.

    ``experts`` in units of the scores, which are sigmoids; ``tokens`` relative to the row's largest score.
    """

    experts: float
    tokens: float


class RefuseNearTies(TorchFunctionMode):
    """Raises `NearTie` at the first choice, in the segment run under this mode, that is closer than ``margins``.

    Rounding adds up from half to half.

    ``identities`` int64 [slots]: slots with the same number hold the same token, and any of them will do.
    """

    def __init__(self, margins: Margins, identities: torch.Tensor):
        super().__init__()
        self._margins = margins
        self._identities = identities
        self._times = 1

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function in _FIRST_OF_HALF:
            self._times += 1
        elif function is torch.ops.predecode.router_topk:
            logits, bias, topk, groups, topk_groups = arguments[:5]
            _refuse(expert_margins(logits, bias, topk, groups, topk_groups) < self._margins.experts * self._times)
        elif function is torch.ops.predecode.topk_slots:
            _refuse(token_margins(*arguments, self._identities) < self._margins.tokens * self._times)
        return function(*arguments, **(keywords or {}))


def _refuse(near: torch.Tensor) -> None:
    if near.any():
        raise NearTie(near)


def expert_margins(
    logits: torch.Tensor, correction_bias: torch.Tensor, topk: int, groups: int, topk_groups: int
) -> torch.Tensor:
    """[T]: how far the last expert that `router_topk` chooses is above the next one, or the last group above the next.

    Infinite where nothing is left to choose from.
    """
    keys = torch.sigmoid(logits) + correction_bias
    margins = torch.full_like(keys[:, 0], float("inf"))
    if groups > 1:
        grouped = keys.unflatten(1, (groups, -1))
        of_groups = grouped.topk(2, -1).values.sum(-1)
        margins = torch.minimum(margins, _gap(of_groups, topk_groups))
        kept = torch.zeros_like(of_groups, dtype=torch.bool)
        kept = kept.scatter(1, of_groups.topk(topk_groups, -1).indices, True)
        keys = grouped.masked_fill(~kept[..., None], float("-inf")).flatten(1)
    return torch.minimum(margins, _gap(keys, topk))


def _gap(scores: torch.Tensor, count: int) -> torch.Tensor:
    if count == scores.shape[1]:
        return torch.full_like(scores[:, 0], float("inf"))
    best = scores.topk(count + 1, -1).values
    return best[:, count - 1] - best[:, count]


def token_margins(
    logits: torch.Tensor, lengths: torch.Tensor, block_table: torch.Tensor, topk: int, identities: torch.Tensor
) -> torch.Tensor:
    """[T]: how near another token's score comes to that of the last token that `topk_slots` chooses.

    Relative to the row's largest score; infinite where all tokens are chosen.
    """
    position = torch.arange(logits.shape[1], device=logits.device)
    inside = position < lengths[:, None]
    slots = block_table.long().repeat_interleave(PAGE_TOKENS, 1) * PAGE_TOKENS + position % PAGE_TOKENS
    owner = identities[torch.where(inside, slots, 0)]
    scores = logits.masked_fill(~inside, float("-inf"))
    last = scores.topk(min(topk, scores.shape[1]), -1).indices[:, -1:]
    distance = (scores - scores.gather(1, last)).abs()
    nearest = distance.masked_fill(owner == owner.gather(1, last), float("inf")).amin(1)
    largest = torch.where(inside, logits, 0.0).abs().amax(1)
    return torch.where(lengths > topk, nearest / largest, float("inf"))
