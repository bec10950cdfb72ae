"""Rotary position embedding in plain torch, for both ways to pair the rotated dimensions.

Pair ``i`` of ``dim / 2`` is (2i, 2i + 1) when "interleaved" (GPT-J) and (i, i + dim/2) in "halves"
(GPT-NeoX). ``(x, y) -> (x cos - y sin, y cos + x sin)``; the pairs stay in place. The arithmetic is float32.
"""

import torch

INTERLEAVED = "interleaved"
HALVES = "halves"


def rope_define(rope_layout: str) -> tuple[str, int]:
    """The macro that tells a kernel how the rotated dimensions are paired."""
    return "ROPE_HALVES", int(rope_layout == HALVES)


def require_rope_layout(consumer: str, rope_layout: str) -> None:
    """Refuse a pairing that is not known."""
    if rope_layout not in (INTERLEAVED, HALVES):
        raise ValueError(f'{consumer}: rope layout {rope_layout!r} is not known; use "{INTERLEAVED}" or "{HALVES}"')


def require_rope_rows(
    consumer: str, rope_table: torch.Tensor, positions: torch.Tensor, rows: int, rope_dim: int
) -> None:
    """``rope_table`` must be float32 [positions, rope_dim] and ``positions`` int64 [rows]."""
    if rope_table.dtype != torch.float32 or rope_table.dim() != 2 or rope_table.shape[1] != rope_dim:
        raise ValueError(
            f"{consumer}: rope table {rope_table.dtype}{list(rope_table.shape)}; expected float32 "
            f"[positions, {rope_dim}], cosines then sines of each pair"
        )
    if positions.dtype != torch.int64 or list(positions.shape) != [rows]:
        raise ValueError(
            f"{consumer}: positions {positions.dtype}{list(positions.shape)}; expected int64 [{rows}], one per row"
        )


def rotate(
    x: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
    first: int,
) -> torch.Tensor:
    """Rotate columns ``first`` to ``first + rope_dim`` of every head; the others pass through.

    ``x`` float32 [T, heads, columns], ``rope_table`` float32 [max positions, rope_dim] (cosines, then sines),
    ``positions`` int64 [T]. Returns float32 [T, heads, columns].
    """
    rope_dim = rope_table.shape[1]
    pairs = rope_dim // 2
    # Gathering each element's partner, instead of splitting and concatenating, compiles to one dispatch.
    columns = torch.arange(x.shape[2], device=x.device)
    rotated = torch.logical_and(columns >= first, columns < first + rope_dim)
    dim = torch.where(rotated, columns - first, 0)
    if rope_layout == INTERLEAVED:
        pair, second = dim // 2, dim % 2
        partner = dim + 1 - 2 * second
    else:
        pair, second = dim % pairs, dim // pairs
        partner = dim + pairs - rope_dim * second
    cosines = rope_table[positions[:, None], pair][:, None]
    sines = rope_table[positions[:, None], pairs + pair][:, None]
    signed = torch.where(second == 1, sines, -sines)
    return torch.where(rotated, x * cosines + x[:, :, first + partner] * signed, x)
