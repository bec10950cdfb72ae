"""The launch of a product whose workgroups share it in clusters."""

from dataclasses import replace

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.skinny_tile import FloatSplitTile
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT
from predecode.custom_kernels.warpgroup_tile import WarpgroupTile


def in_clusters(
    launch: Launch,
    split: FloatSplitTile | WarpgroupTile,
    source: str,
    weight_units: int,
    rows: int,
    columns: int,
) -> Launch:
    """``launch`` in clusters, which can post its result, and falls back to ``launch`` where clusters are not to be had.

    ``weight_units`` is what ``split.workgroups`` takes; ``rows`` and ``columns`` are those of the activations.
    """
    return replace(
        launch,
        source=source,
        workgroups=split.workgroups(weight_units),
        defines=(("ROWS", rows), ("COLUMNS", columns), *split.defines),
        workgroups_per_unit=RESIDENT_PER_UNIT,
        cluster=split.split,
        when_resident=launch,
        reads_early=tuple(name for name in launch.operands if name in ("weight", "weight_scales")),
        posts=True,
    )
