"""Byte layouts: each has one index map, and everything else uses it.

The two maps of matrices are functions of `pipelines.page_layout`, where reading a cache without torch needs them.

Two facts cover the decode layer's storage:

* a tile of 16 rows x 16 columns is 256 contiguous elements, tiles run along the columns first
  (aiter `shuffle_weight(layout=(16, 16))`, and the preshuffled indexer page of `indexer_k_quant_and_cache`)::

      offset(row, column) = row//16 * 16*columns + column//16 * 256 + row%16 * 16 + column%16

* an activation's group scales lie either row by row or group by group (aiter `transpose_scale`).

Index maps work on Python ints, NumPy arrays and torch tensors alike.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from predecode.pipelines.page_layout import (
    PAGE_TOKENS,
    SCALE_BYTES,
    TILE,
    row_major_offset,
    tiled_offset,
)

GROUP = 128
"""Columns of an activation that share a scale; weights share one per GROUP x GROUP block."""
INDEXER_HEAD_DIM = 128


class LayoutError(TypeError):
    """A tensor was handed over in another layout than its consumer reads."""


@dataclass(frozen=True, slots=True)
class RowMajor:
    """Rows of consecutive elements."""

    name: ClassVar[str] = "row-major"

    def offset(self, row, column, columns: int):
        """Element offset of ``(row, column)`` in a matrix of ``columns`` columns."""
        return row_major_offset(row, column, columns)

    def position(self, offset, columns: int):
        """Inverse of `offset`: ``(row, column)``."""
        return offset // columns, offset % columns

    def pack(self, matrix: torch.Tensor) -> torch.Tensor:
        """[..., rows, columns] -> stored tensor."""
        return matrix

    def unpack(self, stored: torch.Tensor) -> torch.Tensor:
        """Stored tensor -> [..., rows, columns]."""
        return stored


@dataclass(frozen=True, slots=True)
class Tiled16x16:
    """Tiles of 16 x 16 elements, each contiguous; stored tensors are [..., rows/16, columns/16, 16, 16]."""

    name: ClassVar[str] = "tiled-16x16"

    def offset(self, row, column, columns: int):
        """Element offset of ``(row, column)`` in a matrix of ``columns`` columns (a multiple of 16)."""
        return tiled_offset(row, column, columns)

    def position(self, offset, columns: int):
        """Inverse of `offset`: ``(row, column)``."""
        band, in_band = offset // (TILE * columns), offset % (TILE * columns)
        tile, in_tile = in_band // (TILE * TILE), in_band % (TILE * TILE)
        return band * TILE + in_tile // TILE, tile * TILE + in_tile % TILE

    def pack(self, matrix: torch.Tensor) -> torch.Tensor:
        """[..., rows, columns] -> [..., rows/16, columns/16, 16, 16]; both must be multiples of 16."""
        *batch, rows, columns = matrix.shape
        if rows % TILE or columns % TILE:
            raise LayoutError(
                f"a {rows} x {columns} matrix cannot be {self.name}: both must be multiples of {TILE}; pad it"
            )
        return matrix.reshape(*batch, rows // TILE, TILE, columns // TILE, TILE).transpose(-3, -2).contiguous()

    def unpack(self, stored: torch.Tensor) -> torch.Tensor:
        """[..., rows/16, columns/16, 16, 16] -> [..., rows, columns]."""
        *batch, bands, tiles, _, _ = stored.shape
        return stored.transpose(-3, -2).reshape(*batch, bands * TILE, tiles * TILE)


@dataclass(frozen=True, slots=True)
class RowMajorScales:
    """Group scales stored as float32 [rows, groups]."""

    name: ClassVar[str] = "row-major scales"

    def offset(self, row, group, rows: int, groups: int):
        """Element offset of the scale of ``group`` in ``row``."""
        return row * groups + group

    def pack(self, scales: torch.Tensor) -> torch.Tensor:
        """[rows, groups] -> stored tensor."""
        return scales

    def unpack(self, stored: torch.Tensor) -> torch.Tensor:
        """Stored tensor -> [rows, groups]."""
        return stored


@dataclass(frozen=True, slots=True)
class GroupMajorScales:
    """Group scales stored as float32 [groups, rows]; what the preshuffled GEMM reads."""

    name: ClassVar[str] = "group-major scales"

    def offset(self, row, group, rows: int, groups: int):
        """Element offset of the scale of ``group`` in ``row``."""
        return group * rows + row

    def pack(self, scales: torch.Tensor) -> torch.Tensor:
        """[rows, groups] -> [groups, rows]."""
        return scales.transpose(0, 1).contiguous()

    def unpack(self, stored: torch.Tensor) -> torch.Tensor:
        """[groups, rows] -> [rows, groups]."""
        return stored.transpose(0, 1)


ROW_MAJOR = RowMajor()
TILED_16X16 = Tiled16x16()
ROW_MAJOR_SCALES = RowMajorScales()
GROUP_MAJOR_SCALES = GroupMajorScales()


@dataclass(frozen=True, slots=True)
class IndexerPage:
    """One page of the indexer's key cache: 64 tokens, all key bytes first, then one float32 scale per token.

    ``keys`` orders the 64 x 128 key elements (one byte each in FP8) inside the page: ROW_MAJOR is aiter's plain
    page, TILED_16X16 its preshuffled one. In FP8 a page is 64*128 + 64*4 = 8448 bytes::

        key(token, dim)  = keys.offset(token, dim, 128) * itemsize
        scale(token)     = 64*128*itemsize + 4*token
    """

    name: str
    keys: RowMajor | Tiled16x16

    def page_bytes(self, itemsize: int) -> int:
        """Bytes of one page."""
        return PAGE_TOKENS * (INDEXER_HEAD_DIM * itemsize + SCALE_BYTES)

    def key_offset(self, token, dim, itemsize: int):
        """First byte, within the page, of element ``dim`` of the key of ``token`` (0..63)."""
        return self.keys.offset(token, dim, INDEXER_HEAD_DIM) * itemsize

    def scale_offset(self, token, itemsize: int):
        """First byte, within the page, of the float32 scale of ``token`` (0..63)."""
        return PAGE_TOKENS * INDEXER_HEAD_DIM * itemsize + SCALE_BYTES * token


PLAIN_PAGE = IndexerPage("plain page", ROW_MAJOR)
PRESHUFFLED_PAGE = IndexerPage("preshuffled page", TILED_16X16)

WEIGHT_LAYOUTS = {layout.name: layout for layout in (ROW_MAJOR, TILED_16X16)}
SCALE_LAYOUTS = {layout.name: layout for layout in (ROW_MAJOR_SCALES, GROUP_MAJOR_SCALES)}
INDEXER_PAGES = {page.name: page for page in (PLAIN_PAGE, PRESHUFFLED_PAGE)}


def require_layout(consumer: str, argument: str, given, expected, remedy: str) -> None:
    """Refuse ``argument`` of ``consumer`` unless it lies as ``expected``; the message names both layouts."""
    if given != expected:
        raise LayoutError(f"{consumer} reads {argument} as {expected.name}, but it was given {given.name}; {remedy}")
