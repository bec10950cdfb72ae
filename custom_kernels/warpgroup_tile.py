"""How a block-scaled product of few rows is cut into workgroups of NVIDIA's warpgroups, which multiply with `wgmma`."""

import math
from dataclasses import dataclass, replace
from operator import attrgetter

from predecode.custom_kernels.layouts import GROUP, TILE
from predecode.custom_kernels.skinny_tile import MOST_ROWS, SPLITS, THREADS
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target

WAVES = THREADS // 32
"""Of a workgroup of NVIDIA's warpgroups."""
PAIR_BANDS = 4
"""Bands of a pair of workgroups: one for each wave of a warpgroup."""
WARPGROUP_ROWS = (8, 16, 32, 48, 64)
"""Activation rows that NVIDIA's warpgroups are programmed to take."""
WARPGROUP_ALIGNMENT = 1024
"""Bytes to a multiple of which the warpgroups' rows lie in workgroup memory."""
FEWEST_GROUPS = 3
RESIDENT_SHARE = 0.75
"""Of the workgroups that are resident, those of one product: another one, or the level before, takes the rest."""


@dataclass(frozen=True, slots=True)
class WarpgroupTile:
    """What a cluster of ``split`` workgroups takes, each a slice of the columns: ``bands`` bands of 16 weight rows.

    A wave takes one, or with others its groups in turn. All of the slice's activation rows, as ``unit_rows``, are in
    workgroup memory, and each wave's weights of ``ahead`` groups are under way.
    """

    bands: int
    split: int
    ahead: int
    unit_rows: int

    @property
    def band_waves(self) -> int:
        """Waves that share a band."""
        return WAVES // self.bands

    @property
    def sum_bytes(self) -> int:
        """Workgroup memory of the sums over a cluster, at most: pairs of waves that add up need half."""
        return 4 * TILE * WAVES * self.unit_rows + 16

    def with_most_ahead(self, target: Target, columns: int, kept: int = 0) -> "WarpgroupTile | None":
        """The tile with as many weights under way as leave ``kept`` bytes of workgroup memory; None where none do.

        Memory for another workgroup is left in any case. The sums of many rows come where the weights were.
        """
        groups = columns // GROUP // self.split
        if columns % (GROUP * self.split * self.band_waves):
            return None
        room = target.resident_share - WARPGROUP_ALIGNMENT - groups * (self.unit_rows * (GROUP + 4) + 4) - kept
        if self.unit_rows == WARPGROUP_ROWS[0]:
            room -= self.sum_bytes
        ahead = min(groups // self.band_waves, room // (WAVES * (TILE * GROUP + 8)))
        return replace(self, ahead=ahead) if ahead > 0 and room >= self.sum_bytes else None

    def workgroups(self, bands: int) -> tuple[int, int, int]:
        """The grid for ``bands`` bands in all."""
        return -(-bands // self.bands) * self.split, 1, 1

    @property
    def defines(self) -> tuple[tuple[str, int], ...]:
        """The constants that the kernel's source takes."""
        return ("BANDS", self.bands), ("SPLIT", self.split), ("AHEAD", self.ahead), ("UNIT_ROWS", self.unit_rows)


def warpgroup_tile(target: Target, rows: int, bands: int, columns: int) -> WarpgroupTile | None:
    """The tile of a product by warpgroups; arguments as of `block_scaled_tile`. None where there are none.

    As many slices are taken as leave every workgroup resident, but none so short that adding them up takes longer than
    multiplying them. Then as many weights are under way as there is memory for.
    """
    if target.device != "cuda" or rows > MOST_ROWS:
        return None
    fitting = [tile for split in SPLITS if (tile := _of_warpgroups(target, rows, columns, WAVES, split))]
    most = RESIDENT_SHARE * RESIDENT_PER_UNIT * target.compute_units
    most_slices = columns // (GROUP * FEWEST_GROUPS)
    suiting = [tile for tile in fitting if tile.split <= most_slices and math.prod(tile.workgroups(bands)) <= most]
    split = attrgetter("split")
    return max(suiting, key=split, default=min(fitting, key=split, default=None))


def pair_tile(target: Target, rows: int, bands: int, columns: int) -> WarpgroupTile | None:
    """The tile of a product by warpgroups of pairs of workgroups; None where larger clusters do better.

    Pairs fit wherever two workgroups do, also behind a level that fills the device. They are taken where they use every
    compute unit and have half of their weights under way at once: they read more of the activations.
    """
    if target.device != "cuda" or rows > MOST_ROWS:
        return None
    tile = _of_warpgroups(target, rows, columns, PAIR_BANDS, 2)
    if not tile or 2 * tile.ahead * tile.band_waves < columns // GROUP // 2:
        return None
    filled = math.prod(tile.workgroups(bands)) / target.compute_units
    return tile if 1 <= filled <= RESIDENT_PER_UNIT else None


def _of_warpgroups(target: Target, rows: int, columns: int, bands: int, split: int) -> WarpgroupTile | None:
    """The tile of so many bands and slices that leaves memory for another workgroup; None where it does not fit."""
    unit_rows = next(count for count in WARPGROUP_ROWS if count >= rows)
    return WarpgroupTile(bands, split, 0, unit_rows).with_most_ahead(target, columns)
