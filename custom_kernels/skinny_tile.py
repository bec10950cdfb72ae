"""How a matrix product of few rows is cut into workgroups of 256 threads, and how far ahead each loads.

Such a product takes the time of reading its weight. A workgroup takes some weight rows, in bands of 16, and some
activation rows, in parts of as many as a quarter of a wave has lanes; its waves share the columns.
"""

from dataclasses import dataclass

from predecode.custom_kernels.layouts import TILE
from predecode.custom_kernels.targets import Target

THREADS = 256
FRAGMENT_BYTES = 64
"""Bytes of a row that a wave multiplies in one step."""
MOST_ROWS = 64
"""Activation rows of one workgroup."""
MOST_BANDS = 4
MOST_FLOAT_SPLIT_ROWS = 24
"""Activation rows up to which a float weight is faster in clusters even if of one workgroup, measured on an H200."""
SPLITS = (1, 2, 4, 8)
FLOAT_STAGE = 256
FILLED = 0.9
"""Share of the compute units whose use matters more than how much each loads."""
UNITS_SERVED_BY_CACHE = 50
"""Compute units that the shared cache can serve at the full rate of one; the H200's is 5.5 TB/s to 0.11 TB/s."""


@dataclass(frozen=True, slots=True)
class SkinnyTile:
    """What a workgroup takes: ``outputs`` weight rows in ``bands`` of 16, and ``parts`` parts of activation rows.

    It keeps the loads of weights of ``weights_ahead`` steps under way, and those of ``rows_ahead`` parts.
    """

    outputs: int
    parts: int
    weights_ahead: int
    rows_ahead: int

    @property
    def bands(self) -> int:
        """Bands of 16 weight rows, the last one perhaps not whole."""
        return -(-self.outputs // TILE)

    def workgroups(self, target: Target, rows: int, outputs: int) -> tuple[int, int, int]:
        """The grid for ``rows`` activation rows and ``outputs`` weight rows in all."""
        return -(-outputs // self.outputs), -(-rows // (self.parts * part_rows(target))), 1

    @property
    def defines(self) -> tuple[tuple[str, int], ...]:
        """The constants that the kernels' sources take."""
        return (
            ("BANDS", self.bands),
            ("PARTS", self.parts),
            ("WEIGHTS_AHEAD", self.weights_ahead),
            ("ROWS_AHEAD", self.rows_ahead),
        )


def part_rows(target: Target) -> int:
    """Activation rows of a part: the columns of the matrix unit's tile (PART_ROWS in matrix.h)."""
    return target.wave_size // 4


@dataclass(frozen=True, slots=True)
class FloatSplitTile:
    """What a cluster of ``split`` workgroups takes, each a slice of the columns.

    That is ``bands`` bands of 16 weight rows and ``block`` activation rows, of which there are ``blocks`` blocks. A
    slice is loaded in stages of ``stage`` columns, of which ``ahead`` are under way.
    """

    bands: int
    block: int
    blocks: int
    split: int
    stage: int
    ahead: int

    def workgroups(self, outputs: int) -> tuple[int, int, int]:
        """The grid for ``outputs`` weight rows in all."""
        return -(-outputs // (self.bands * TILE)) * self.split, self.blocks, 1

    @property
    def defines(self) -> tuple[tuple[str, int], ...]:
        """The constants that the kernel's source takes."""
        return (
            ("BANDS", self.bands),
            ("BLOCK", self.block),
            ("SPLIT", self.split),
            ("STAGE", self.stage),
            ("AHEAD", self.ahead),
        )


def float_split_tile(target: Target, rows: int, outputs: int, columns: int) -> FloatSplitTile | None:
    """The tile of a product in clusters; arguments as of `float_tile`. None where that one is faster.

    These weights have few rows: as many slices are taken as it takes to use most compute units. Of the tiles that do,
    the one is taken whose workgroups load least; of as many stages as leave room for another workgroup.
    """
    if target.device != "cuda" or rows > MOST_ROWS:
        return None
    splits = [split for split in SPLITS if columns % (split * TILE) == 0]
    if not splits:
        return None

    def tile(bands: int, blocks: int) -> tuple[tuple[bool, float, int], tuple[int, int, int]]:
        """The cost of workgroups of ``bands`` bands and one of ``blocks`` blocks of rows, and how they are cut."""
        tiles = -(-outputs // (bands * TILE)) * blocks
        split = min((split for split in splits if tiles * split > FILLED * target.compute_units), default=max(splits))
        workgroups = tiles * split
        loaded = (bands * TILE + -(-rows // blocks)) / split
        time = loaded * max(-(-workgroups // target.compute_units), workgroups / UNITS_SERVED_BY_CACHE)
        return (workgroups <= FILLED * target.compute_units, time, workgroups), (bands, blocks, split)

    few_rows = rows <= MOST_FLOAT_SPLIT_ROWS
    _, (bands, blocks, split) = min(tile(*choice) for choice in (((1, 1),) if few_rows else ((1, 1), (1, 2), (2, 2))))
    if split == 1 and not few_rows:
        return None
    block = -(-rows // blocks)
    room = target.resident_share
    sums = 16 + 16 * split * -(-block * bands * TILE // 4 // split)
    stage_bytes = 2 * (bands * TILE + block) * (FLOAT_STAGE + 8)
    ahead = min(-(-columns // split // FLOAT_STAGE), (room - sums) // stage_bytes)
    return FloatSplitTile(bands, block, blocks, split, FLOAT_STAGE, ahead)


def block_scaled_tile(target: Target, rows: int, bands: int, columns: int) -> SkinnyTile:
    """The tile for ``rows`` FP8 activation rows and ``bands`` bands of a block-scaled weight of ``columns`` columns.

    All rows, up to 64, share a read of the weight. Of the numbers of bands that let the busiest compute unit read
    least, the one is taken that keeps every workgroup resident; then few bands, to use more compute units, or at
    many rows many bands, to read the rows less often.
    """
    # NVIDIA's registers hold the most parts only if it is known when compiling which rows these are.
    most = MOST_ROWS if target.wave_size == 64 or rows == MOST_ROWS else MOST_ROWS // 2
    parts = _parts(target, min(rows, most))
    blocks = -(-rows // (parts * part_rows(target)))
    steps = _steps(target, columns)
    few_rows, short = parts <= 2, steps <= 4

    def cost(each: int) -> tuple[int, bool, int]:
        workgroups = -(-bands // each) * blocks
        resident = (3 if short else 2) if each == 1 and few_rows else 1
        busiest = -(-workgroups // target.compute_units) * each
        return busiest, workgroups > resident * target.compute_units, each if few_rows else -each

    # By number of bands, as many loads as registers allow: 80 a thread where three workgroups shall be resident, 128
    # where two, else 255. Rows ahead are in workgroup memory on NVIDIA.
    if target.wave_size == 32:
        one_band = {1: 4 if steps == 4 else 2, 2: 2, 4: 2, 8: 1} if short else {1: 6, 2: 3, 4: 2, 8: 1}
        ahead = (one_band[parts], *{1: (6, 4, 3), 2: (4, 2), 4: (2, 1), 8: (1, 1)}[parts])
        most_rows = 12 if parts == 1 else 8 if steps > 3 else 4
    else:
        ahead = {1: (12, 8, 6, 4), 2: (8, 6, 4, 4), 4: (6, 4, 4, 2)}[parts]
        most_rows = 12
    chosen = min(range(1, 1 + len(ahead)), key=cost)
    return _tile(target, chosen * TILE, parts, ahead[chosen - 1], most_rows, columns)


def float_tile(target: Target, rows: int, outputs: int, columns: int) -> SkinnyTile:
    """The tile for ``rows`` bfloat16 activation rows and ``outputs`` weight rows of ``columns`` columns.

    These weights have few rows, so the rows of `x` weigh as much: the tile is taken that needs the least time to
    load both, from the busiest compute unit's or the shared cache's point of view.
    """
    size = part_rows(target)

    def cost(tile: tuple[int, int]) -> tuple[float, int]:
        outputs_each, parts = tile
        workgroups = -(-outputs // outputs_each) * -(-rows // (parts * size))
        loaded = outputs_each + min(parts * size, rows)
        busiest = -(-workgroups // target.compute_units)
        return loaded * max(busiest, workgroups / UNITS_SERVED_BY_CACHE), workgroups

    most_parts = _parts(target, min(rows, MOST_ROWS))
    parts_choices = [parts for parts in (1, 2, 4, 8) if parts <= most_parts]
    outputs_choices = (4, 8, *range(TILE, MOST_BANDS * TILE + 1, TILE))
    chosen, parts = min(((each, parts) for each in outputs_choices for parts in parts_choices), key=cost)
    # Registers for loads, after those of the sums: of a step's weights, and on AMD of as many steps' rows.
    in_registers = target.wave_size == 64
    large, small = (192, 100) if in_registers else (150, 84)
    registers = small if chosen <= TILE and parts <= 2 else large
    of_step = 4 * -(-chosen // size) + (4 * parts if in_registers else 0)
    ahead = (registers - 4 * parts * -(-chosen // TILE)) // of_step
    return _tile(target, chosen, parts, max(1, ahead), 12, 2 * columns)


def _parts(target: Target, rows: int) -> int:
    return 1 << (-(-rows // part_rows(target)) - 1).bit_length()


def _steps(target: Target, row_bytes: int) -> int:
    """Fragments that each wave multiplies."""
    return -(-(row_bytes // FRAGMENT_BYTES) // (THREADS // target.wave_size))


def _tile(target: Target, outputs: int, parts: int, ahead: int, most_rows: int, row_bytes: int) -> SkinnyTile:
    steps = _steps(target, row_bytes)
    weights_ahead = min(steps, ahead)
    # Where the kernel's loop is not unrolled, a turn must use every place of both rings.
    places = weights_ahead * parts if parts > 2 else steps * parts
    rows_ahead = max(n for n in range(1, most_rows + 1) if n <= places and (parts <= 2 or places % n == 0))
    return SkinnyTile(outputs, parts, weights_ahead, rows_ahead)
