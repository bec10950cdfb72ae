"""The rotations of an indexer head, of the query's and the key's alike: by position, then by the Hadamard matrix."""

import torch

from predecode.custom_kernels.hadamard import hadamard_rotate
from predecode.custom_kernels.rope import rotate

INDEXER_ROPE_DIM = 64
"""The dimensions rotated by position come first in an indexer head."""


def rope_and_hadamard(
    heads: torch.Tensor, rope_table: torch.Tensor, positions: torch.Tensor, rope_layout: str
) -> torch.Tensor:
    """``heads`` [T, heads, 128] rotated by position, then by the Hadamard matrix, rounded after each."""
    turned = rotate(heads.float(), rope_table, positions, rope_layout, first=0).to(heads.dtype)
    return hadamard_rotate(turned.float()).to(heads.dtype)
