"""Rope tables and positions that the cases of the rotating ops share."""

import torch


def table(positions: int, rope_dim: int = 64) -> torch.Tensor:
    """float32 [positions, rope_dim] of cosines, then sines, for base 1e6."""
    frequencies = 1e6 ** (-torch.arange(0, rope_dim, 2, dtype=torch.float64) / rope_dim)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * frequencies
    return torch.cat((angles.cos(), angles.sin()), 1).float()


def scattered_positions(generator: torch.Generator, rows: int, limit: int) -> torch.Tensor:
    """int64 [rows] below ``limit``; the first is 0 and the last ``limit - 1``."""
    positions = torch.randint(0, limit, (rows,), generator=generator)
    positions[0] = 0
    positions[-1] = limit - 1
    return positions


def random_slots(generator: torch.Generator, rows: int, pages: int, padding: tuple[int, ...] = ()) -> torch.Tensor:
    """int64 [rows] of different slots among ``pages`` of 64, the rows in ``padding`` -1."""
    slots = torch.randperm(pages * 64, generator=generator)[:rows]
    slots[list(padding)] = -1
    return slots
