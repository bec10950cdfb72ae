"""Columns put side by side in plain torch."""

import torch


def join_columns(left: torch.Tensor, right: torch.Tensor, first: int) -> torch.Tensor:
    """[..., n] and the columns from ``first`` on of [..., m] -> [..., n + m - first].

    Unlike `torch.cat` it compiles without a copy. The caller does not slice ``right``: IREE's GPU code generators
    gather from a slice as if its rows lay side by side.
    """
    split = left.shape[-1]
    column = torch.arange(split + right.shape[-1] - first, device=left.device)
    return torch.where(
        column < split, left[..., column.clamp_max(split - 1)], right[..., (column - split).clamp_min(0) + first]
    )
