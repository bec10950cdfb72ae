"""What a layer should cost on the AMD chips: a model of its dispatches and bytes, not a measurement."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.chips import MI300X, MI355X, Chip
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.layer_of_dispatch import layers_of_dispatches
from predecode.pipelines.manifest import Dispatch, Manifest
from predecode.pipelines.quantities import format_bytes
from predecode.pipelines.rival_trace import (
    ALL_REDUCES,
    CONDITIONS,
    FLOOR_SECONDS,
    SHORTEST_SECONDS,
    TRACE,
    TraceKernel,
    is_comparable,
    work_of,
)

CHIPS = (MI355X, MI300X)
DISPATCH_SECONDS = SHORTEST_SECONDS
"""Charged for every dispatch besides its bytes: what the shortest kernel of a published trace takes."""
ASSUMPTIONS = (
    f"A model, not a measurement: {DISPATCH_SECONDS * 1e6:g} µs for every dispatch, and its bytes at the vendor's "
    "memory bandwidth. Every row is at the longest context, no two rows meet in an expert where there are enough, "
    "and neither barriers inside a dispatch nor all-reduces are counted."
)


@dataclass(frozen=True, slots=True)
class PredictedLayer:
    """One layer at a row count: its dispatches in order, and how many dependency levels they form.

    ``rival`` lists for each dispatch the kernels of a published trace that do its work, None where the trace is of
    another model or size.
    """

    layer: int
    rows: int
    dispatches: tuple[Dispatch, ...]
    levels: int
    rival: tuple[tuple[TraceKernel, ...], ...] | None

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return sum(bytes_moved(dispatch) for dispatch in self.dispatches)

    def floor_seconds(self, chip: Chip) -> float:
        """Least time for the bytes."""
        return self.bytes / chip.memory_bandwidth

    def predicted_seconds(self, chip: Chip) -> float:
        """By the model of this module."""
        return len(self.dispatches) * DISPATCH_SECONDS + self.floor_seconds(chip)

    def to_markdown(self) -> str:
        """A table of the dispatches with bytes, floor times and the trace's times, and what the numbers are."""
        return "\n".join(_markdown(self)) + "\n"


def bytes_moved(dispatch: Dispatch) -> int:
    """Bytes that a dispatch reads and writes."""
    return dispatch.bytes_read + dispatch.bytes_written


def predicted_layer(artifact: Manifest | Path | str, rows: int, layer: int) -> PredictedLayer:
    """The layer ``layer`` of an artifact (its folder or manifest) at ``rows`` rows.

    Raises `PredecodeError` if the artifact has no such layer or row count.
    """
    manifest = artifact if isinstance(artifact, Manifest) else read_manifest(Path(artifact))
    found = {(p.rows, p.layer): p for p in predicted_layers(manifest)}
    if (rows, layer) not in found:
        choices = ", ".join(f"layer {layer} of {rows} rows" for rows, layer in sorted(found)) or "none"
        raise PredecodeError(f"no layer {layer} of {rows} rows in the artifact; choose one of: {choices}")
    return found[rows, layer]


def predicted_layers(manifest: Manifest) -> tuple[PredictedLayer, ...]:
    """Every layer at every row count of an artifact for AMD chips; none for another target."""
    if manifest.target.device != "hip":
        return ()
    return tuple(layer for rows in manifest.row_counts for layer in _layers(manifest, rows))


def _layers(manifest: Manifest, rows: int) -> Iterator[PredictedLayer]:
    dispatches: dict[int, list[Dispatch]] = {}
    levels: dict[int, int] = {}
    for entry in manifest.segments(rows):
        levels_here: dict[int, set[int]] = {}
        of_dispatch = zip(entry.audit.dispatches, layers_of_dispatches(entry.audit), entry.audit.levels, strict=True)
        for dispatch, layer, level in of_dispatch:
            if layer is not None:
                dispatches.setdefault(layer, []).append(dispatch)
                levels_here.setdefault(layer, set()).add(level)
        for layer, distinct in levels_here.items():
            levels[layer] = levels.get(layer, 0) + len(distinct)
    for layer, listed in sorted(dispatches.items()):
        # The trace is of a layer with experts and an indexer of its own.
        work = work_of(tuple(listed))
        comparable = is_comparable(manifest, rows) and sum(map(len, work)) == len(TRACE) - len(ALL_REDUCES)
        yield PredictedLayer(layer, rows, tuple(listed), levels[layer], tuple(work) if comparable else None)


def rival_summary() -> str:
    """The published trace in a sentence, and what the model would say of it."""
    measured = sum(kernel.microseconds for kernel in TRACE)
    reduced = sum(kernel.microseconds for kernel in ALL_REDUCES)
    modelled = (len(TRACE) * DISPATCH_SECONDS + FLOOR_SECONDS) * 1e6
    return (
        f"{CONDITIONS}: {len(TRACE)} kernels, {measured:.0f} µs traced ({len(ALL_REDUCES)} all-reduces of them "
        f"{reduced:.0f} µs), bytes {FLOOR_SECONDS * 1e6:.0f} µs; this model would say {modelled:.0f} µs of it."
    )


def label_of(dispatch: Dispatch) -> str:
    """Name of a dispatch with the weights that tell it from others of the same op."""
    weights = [b.name for b in dispatch.bindings if b.name.endswith((".values", ".weight")) and b.access == "read"]
    short = [name.split(".", 2)[-1].rpartition(".")[0] for name in weights if name.startswith("layers.")]
    return f"{dispatch.name} ({', '.join(dict.fromkeys(short))})" if short else dispatch.name


def _markdown(layer: PredictedLayer) -> Iterator[str]:
    compared = layer.rival is not None
    chips = [f"floor µs {chip.name}" for chip in CHIPS]
    yield "| dispatch | bytes | " + " | ".join(chips) + (" | traced µs elsewhere |" if compared else " |")
    yield "|---|---|" + "---|" * (len(chips) + compared)
    for dispatch, work in zip(layer.dispatches, layer.rival or [()] * len(layer.dispatches), strict=True):
        moved = bytes_moved(dispatch)
        floors = [f"{moved / chip.memory_bandwidth * 1e6:.2f}" for chip in CHIPS]
        floors = ["< 0.01" if floor == "0.00" else floor for floor in floors]
        traced = _traced(work) if compared else None
        yield _row([f"`{label_of(dispatch)}`", format_bytes(moved), *floors, traced])
    count = len(layer.dispatches)
    floors = [f"{layer.floor_seconds(chip) * 1e6:.1f}" for chip in CHIPS]
    traced = f"{sum(kernel.microseconds for work in layer.rival for kernel in work):.0f}" if compared else None
    yield _row([f"**{count} dispatches, {layer.levels} levels**", format_bytes(layer.bytes), *floors, traced])
    predicted = [f"**{layer.predicted_seconds(chip) * 1e6:.0f}**" for chip in CHIPS]
    yield _row(["**predicted**", "", *predicted, "" if compared else None])
    yield ""
    yield ASSUMPTIONS + (f" {rival_summary()}" if compared else "")


def _traced(work: tuple[TraceKernel, ...]) -> str:
    total = f"{sum(kernel.microseconds for kernel in work):.1f}"
    return f"{total} ({len(work)} kernels)" if len(work) > 1 else total if work else "–"


def _row(cells: list[str | None]) -> str:
    return "| " + " | ".join(cell for cell in cells if cell is not None) + " |"
