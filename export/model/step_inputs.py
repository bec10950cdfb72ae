"""What every layer of a step reads beside its activations."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class StepInputs:
    """One entry per row; a row is one token of one sequence, wherever it comes from.

    ``positions`` and ``slot_mapping`` int64 [T] (slot = page * 64 + offset; -1: the row leaves the caches
    alone), ``lengths`` int32 [T] (tokens the row sees, itself included; 0 for a padding row) and
    ``block_table`` int32 [T, B] (page ids); these two are None where no layer of the segment has an indexer.
    ``rope_table`` float32 [max_context, rope dim], cosines then sines.
    """

    rope_table: torch.Tensor
    positions: torch.Tensor
    slot_mapping: torch.Tensor
    lengths: torch.Tensor | None
    block_table: torch.Tensor | None
