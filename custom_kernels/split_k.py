"""Split-K products: partial sums over slices of the columns, which the reader of the product adds up.

A product of few outputs fills a chip only if many workgroups share its columns. Where one op alone reads the sums, it
adds them up itself: that is sooner than to wait until they have been added up. Such a pair of ops is declared here, and
put into a program by export/fuse_prologues.py.
"""

from dataclasses import dataclass

import torch

from predecode.custom_kernels.op import Op
from predecode.custom_kernels.prologue import Pays, Prologue

SLICES = 32
"""Slices of the columns: as many as the lanes of a wave (or of half a wave), each of which reads something of one."""
SPLIT_PRODUCTS: list["SplitProduct"] = []


def slices_of(matrix: torch.Tensor) -> torch.Tensor:
    """[n, K] as [n, SLICES, columns of a slice]."""
    return matrix.reshape(matrix.shape[0], SLICES, -1)


def join_partials(terms: torch.Tensor, mean_squares: torch.Tensor) -> torch.Tensor:
    """``terms`` [SLICES, T, N] and ``mean_squares`` [SLICES, T] as a kernel stores them, [SLICES, T * (N + 1)].

    Of each slice first the terms of all rows' outputs, then its share of each row's mean square.
    """
    return torch.cat([terms.flatten(1), mean_squares], 1)


def rows_of_partials(partials: torch.Tensor, outputs: int) -> int:
    """T of `join_partials`, of ``outputs`` = N."""
    return partials.shape[1] // (outputs + 1)


def split_partials(partials: torch.Tensor, outputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inverse of `join_partials`."""
    rows = rows_of_partials(partials, outputs)
    terms, mean_squares = partials.split([rows * outputs, rows], 1)
    return terms.reshape(SLICES, rows, outputs), mean_squares


@dataclass(frozen=True, slots=True)
class SplitProduct:
    """``partial`` and ``reader`` are what ``product`` and op ``summed`` are, which reads it as argument ``through``.

    ``partial`` is called with arguments of ``product.fused``, and ``reader``, which has the results of ``summed``, with
    arguments of either and with what ``partial`` returns, as ``partials``.
    """

    partial: Op
    reader: Op
    product: Prologue
    summed: str
    through: str
    pays: Pays


def define_split_product(split: SplitProduct) -> None:
    """Let programs be exported with ``split``."""
    SPLIT_PRODUCTS.append(split)
