"""Discrete choices of a run, and the same choices forced on another run.

Two runs that differ by rounding may pick another expert, or another token, where two scores are nearly equal.
That is no error, but it moves the result further than rounding does. Comparing runs with the same choices
leaves only the rounding.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch

from predecode.export.model.indexer import Indexer
from predecode.export.model.moe import Router
from predecode.export.model.parameters import FloatLinear
from tests.export.decoding import EagerDecoder


@dataclass
class Choices:
    """Chosen experts and slots, one entry per row in the order in which rows were run, by module name."""

    rows: dict[str, list[torch.Tensor]] = field(default_factory=dict)

    def record(self, decoder: EagerDecoder) -> None:
        """From now on, keep what the modules of rank 0 choose."""
        for name, module in _choosers(decoder, 0):
            kept = self.rows.setdefault(name, [])
            module.register_forward_hook(lambda module, given, result, kept=kept: kept.extend(result[0]))

    def force_on(self, decoder: EagerDecoder) -> None:
        """From now on, the modules of every rank choose what was recorded, row by row."""
        for rank in range(len(decoder.ranks)):
            for name, module in _choosers(decoder, rank):
                module.register_forward_hook(_Forced(self.rows[name]))


class _Forced:
    """Replaces a module's choice; expert weights follow from the module's own scores."""

    def __init__(self, rows: list[torch.Tensor]):
        self.rows, self.used = rows, 0

    def __call__(self, module, given, result):
        count = len(result[0])
        chosen = torch.stack(self.rows[self.used : self.used + count])
        self.used += count
        if isinstance(module, Indexer):
            return chosen, result[1]
        config, routed = module.config, chosen[:, : module.config.num_experts_per_tok].long()
        weights = torch.sigmoid(FloatLinear.forward(module, given[0])).gather(1, routed)
        if config.norm_topk_prob:
            weights = weights / weights.sum(-1, keepdim=True)
        return chosen, torch.cat([weights * config.routed_scaling_factor, result[1][:, routed.shape[1] :]], 1)


def _choosers(decoder: EagerDecoder, rank: int) -> Iterator[tuple[str, torch.nn.Module]]:
    for segment in decoder.ranks[rank].segments:
        for name, module in segment.named_modules():
            if isinstance(module, Router | Indexer):
                yield name, module
