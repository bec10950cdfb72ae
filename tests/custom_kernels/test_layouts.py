"""Layouts against brute force: bijections, inverses, packing; and the typed values that carry them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from predecode.custom_kernels.layouts import (
    GROUP_MAJOR_SCALES,
    INDEXER_HEAD_DIM,
    INDEXER_PAGES,
    PAGE_TOKENS,
    PLAIN_PAGE,
    PRESHUFFLED_PAGE,
    ROW_MAJOR,
    ROW_MAJOR_SCALES,
    SCALE_LAYOUTS,
    TILED_16X16,
    WEIGHT_LAYOUTS,
    LayoutError,
)

TILES = st.integers(1, 6)


@pytest.mark.parametrize("layout", WEIGHT_LAYOUTS.values(), ids=WEIGHT_LAYOUTS)
@given(bands=TILES, tiles=TILES)
@settings(max_examples=20, deadline=None)
def test_weight_layouts_are_bijections_and_pack_agrees_with_the_index_map(layout, bands, tiles):
    rows, columns = 16 * bands, 16 * tiles
    row, column = np.indices((rows, columns))
    offsets = layout.offset(row, column, columns)
    assert sorted(offsets.ravel()) == list(range(rows * columns))
    back_row, back_column = layout.position(offsets, columns)
    assert (back_row == row).all() and (back_column == column).all()
    matrix = torch.arange(rows * columns).reshape(rows, columns)
    stored = layout.pack(matrix)
    assert (stored.flatten()[torch.from_numpy(offsets.ravel())] == matrix.flatten()).all()
    assert (layout.unpack(stored) == matrix).all()


def test_tiles_are_what_aiter_documents():
    """view [N/16, 16, K/32, 2, 16], permute to [N/16, K/32, 2, 16 (n), 16 (k)]: written here by itself."""
    matrix = torch.arange(48 * 64).reshape(48, 64)
    shuffled = matrix.view(3, 16, 2, 2, 16).permute(0, 2, 3, 1, 4).contiguous().flatten()
    assert (TILED_16X16.pack(matrix).flatten() == shuffled).all()


def test_swapped_tile_order_is_another_layout():
    matrix = torch.arange(32 * 32).reshape(32, 32)
    rows_first = matrix.view(2, 16, 2, 16).permute(2, 0, 1, 3).contiguous().flatten()
    assert (TILED_16X16.pack(matrix).flatten() != rows_first).any()


@pytest.mark.parametrize("layout", SCALE_LAYOUTS.values(), ids=SCALE_LAYOUTS)
@given(rows=st.integers(1, 70), groups=st.integers(1, 9))
@settings(max_examples=20, deadline=None)
def test_scale_layouts_are_bijections(layout, rows, groups):
    row, group = np.indices((rows, groups))
    offsets = layout.offset(row, group, rows, groups)
    assert sorted(offsets.ravel()) == list(range(rows * groups))
    scales = torch.arange(rows * groups).reshape(rows, groups)
    stored = layout.pack(scales)
    assert (stored.flatten()[torch.from_numpy(offsets.ravel())] == scales.flatten()).all()
    assert (layout.unpack(stored) == scales).all()


def test_swapped_scale_axis_differs():
    assert ROW_MAJOR_SCALES.offset(1, 2, 5, 3) != GROUP_MAJOR_SCALES.offset(1, 2, 5, 3)


@pytest.mark.parametrize("page", INDEXER_PAGES.values(), ids=INDEXER_PAGES)
@pytest.mark.parametrize("itemsize", [1, 4])
def test_a_page_has_a_place_for_every_byte(page, itemsize):
    taken = set()
    for token in range(PAGE_TOKENS):
        for dim in range(INDEXER_HEAD_DIM):
            first = page.key_offset(token, dim, itemsize)
            taken |= set(range(first, first + itemsize))
        first = page.scale_offset(token, itemsize)
        taken |= set(range(first, first + 4))
    assert taken == set(range(page.page_bytes(itemsize)))


def test_page_bytes_of_aiter():
    """aiter `indexer_k_quant_and_cache`: 64 * 132 bytes; the four indices of the preshuffled page."""
    assert PLAIN_PAGE.page_bytes(1) == 8448
    for token, dim in ((0, 0), (15, 127), (16, 0), (63, 127), (37, 90)):
        tile = np.ravel_multi_index((token // 16, dim // 16, token % 16, dim % 16), (4, 8, 16, 16))
        assert PRESHUFFLED_PAGE.key_offset(token, dim, 1) == tile
        assert PLAIN_PAGE.key_offset(token, dim, 1) == token * 128 + dim
        assert PRESHUFFLED_PAGE.scale_offset(token, 1) == 8192 + 4 * token


def test_a_matrix_that_has_no_whole_tiles_is_refused():
    with pytest.raises(LayoutError, match="both must be multiples of 16"):
        TILED_16X16.pack(torch.zeros(24, 32))


def test_row_major_is_the_identity():
    assert ROW_MAJOR.offset(3, 5, 7) == 26
