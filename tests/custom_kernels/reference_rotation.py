"""Rotary embedding and Hadamard rotation of one head, written from their definitions."""

import numpy as np
import torch


def as_rounded(numbers: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """float32 values of ``numbers`` rounded to ``dtype``."""
    return torch.from_numpy(numbers.astype(np.float32)).to(dtype).float().numpy()


def rotate_head(head: np.ndarray, table_row: np.ndarray, layout: str, first: int) -> np.ndarray:
    """float32 ``head`` with its columns from ``first`` rotated pair by pair, in float32."""
    result, pairs = head.astype(np.float32), len(table_row) // 2
    for pair in range(pairs):
        a, b = (2 * pair, 2 * pair + 1) if layout == "interleaved" else (pair, pair + pairs)
        x, y = head[first + a], head[first + b]
        cosine, sine = table_row[pair], table_row[pairs + pair]
        with np.errstate(invalid="ignore"):  # infinite values are cases, too
            result[first + a] = x * cosine - y * sine
            result[first + b] = y * cosine + x * sine
    return result


def sylvester(size: int) -> np.ndarray:
    """H(1) = [1], H(2n) = [[H, H], [H, -H]], divided by the square root of the size."""
    matrix = np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix * size**-0.5


def turn_head(head: np.ndarray, table_row: np.ndarray, layout: str, dtype: torch.dtype) -> np.ndarray:
    """An indexer head of 128: first columns rotated, then Sylvester's matrix, each rounded to ``dtype``."""
    rotated = as_rounded(rotate_head(head, table_row, layout, first=0), dtype)
    return as_rounded(sylvester(128) @ rotated.astype(np.float64), dtype)
