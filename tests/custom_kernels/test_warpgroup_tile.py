"""Tiles of NVIDIA's warpgroups: what the kernel asks of them, and where pairs of workgroups are taken."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predecode.custom_kernels.targets import GFX942, SM_90
from predecode.custom_kernels.warpgroup_tile import pair_tile, warpgroup_tile

shapes = given(st.integers(1, 70), st.integers(1, 2000), st.integers(1, 160))


def require_sound(tile, rows, bands, groups, kept=0):
    """As the kernel's static assertions, and what it takes of memory."""
    x, y, z = tile.workgroups(bands)
    tiles = x // tile.split
    assert rows <= 64 and (y, z) == (1, 1) and x % tile.split == 0
    assert (tiles - 1) * tile.bands < bands <= tiles * tile.bands and tile.bands in (4, 8)
    band_waves = 8 // tile.bands
    assert groups % (tile.split * band_waves) == 0 and tile.split <= 8
    groups //= tile.split
    unit_rows = next(count for count in (8, 16, 32, 48, 64) if count >= rows)
    assert tile.unit_rows == unit_rows and 1 <= tile.ahead <= groups // band_waves
    # The memory of its weights and sums, which many rows' sums share, and of rows, scales and arrivals.
    weights, sums = 8 * tile.ahead * 16 * 128, 16 + 4 * 8 * 16 * unit_rows
    asked = weights + sums if unit_rows == 8 else max(weights, sums)
    asked += groups * (unit_rows * 128 + 4 * (unit_rows + 1)) + 8 * 8 * tile.ahead + kept
    assert -(-asked // 1024) * 1024 <= 113 * 1024


@shapes
def test_warpgroup_tiles(rows, bands, groups):
    assert warpgroup_tile(GFX942, rows, bands, 128 * groups) is None
    if tile := warpgroup_tile(SM_90, rows, bands, 128 * groups):
        require_sound(tile, rows, bands, groups)


@shapes
def test_tiles_that_leave_memory(rows, bands, groups):
    tile = warpgroup_tile(SM_90, rows, bands, 128 * groups)
    for kept in (1, 1000, 30_000) if tile else ():
        if less := tile.with_most_ahead(SM_90, 128 * groups, kept):
            require_sound(less, rows, bands, groups, kept)
            assert less.ahead <= tile.ahead and (less.bands, less.split) == (tile.bands, tile.split)
        assert tile.with_most_ahead(SM_90, 128 * groups, 113 * 1024) is None


@shapes
def test_pair_tiles(rows, bands, groups):
    assert pair_tile(GFX942, rows, bands, 128 * groups) is None
    if tile := pair_tile(SM_90, rows, bands, 128 * groups):
        require_sound(tile, rows, bands, groups)
        assert tile.split == 2 and 132 <= math.prod(tile.workgroups(bands)) <= 264


@pytest.mark.parametrize("rows", [1, 8, 9, 16, 17, 32, 33, 64])
def test_o_proj_is_taken_by_pairs(rows):
    """GLM-5.1's and DeepSeek-V3.2's of a rank of eight; smaller weights, longer rows and many rows are not."""
    assert pair_tile(SM_90, rows, 384, 2048).workgroups(384) == (192, 1, 1)
    assert pair_tile(SM_90, rows, 448, 2048).workgroups(448) == (224, 1, 1)
    assert pair_tile(SM_90, rows, 256, 2048) is None
    assert pair_tile(SM_90, rows, 384, 16384) is None
    assert pair_tile(SM_90, 65, 384, 2048) is None
