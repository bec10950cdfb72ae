"""`predecode inspect` on a terminal: tables of dispatches, kernels and predicted layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from predecode.pipelines.inspection import (
    KIND_STYLES,
    UsedKernel,
    bound_bytes,
    describe_geometry,
    describe_model,
    floor_seconds,
    rounds,
    used_kernels,
    waves,
)
from predecode.pipelines.inspection_rows import (
    INSTRUCTION_HEADINGS,
    PREDICTION_HEADINGS,
    RESOURCE_HEADINGS,
    instruction_cells,
    prediction_notes,
    prediction_rows,
    registers_note,
    resource_cells,
)
from predecode.pipelines.kernel_record import KernelRecord
from predecode.pipelines.layer_of_dispatch import layers_of_dispatches
from predecode.pipelines.manifest import EntryPoint, Manifest
from predecode.pipelines.measurement import Measurement
from predecode.pipelines.prediction import PredictedLayer, bytes_moved, predicted_layers
from predecode.pipelines.quantities import format_bytes, format_ratio, format_seconds

# Longer names (of several ops in one dispatch) are folded.
_NAME_WIDTH = 28


def tables(manifest: Manifest, measured: Mapping[str, Measurement]) -> Iterator[RenderableType]:
    """Everything that is known of the artifact, in the order to print it."""
    target = manifest.target
    yield Group(
        Text(describe_model(manifest), style="bold"),
        Text(f"{target.name} ({target.arch}, {target.device}), {target.element_format}; {describe_geometry(manifest)}"),
        Text(", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())), style="dim"),
        Text(),
    )
    for entry in manifest.entry_points:
        yield _entry_table(manifest, entry)
        if entry.name in measured:
            yield _counters_table(entry, measured[entry.name])
        yield _entry_summary(manifest, entry)
    kernels = [used for used in used_kernels(manifest) if used.record.instructions is not None]
    if kernels:
        yield _resources_table(kernels)
        yield _instructions_table(kernels)
    layers = predicted_layers(manifest)
    if layers:
        yield _prediction_table(layers)
        yield Text("\n".join(prediction_notes(layers)) + "\n")


def _table(title: str, columns: Sequence[str], named: Iterable[str] = (), *, footer: bool = False) -> Table:
    """An empty table; the column "dispatch" is as wide as the things ``named`` need, within bounds."""
    table = Table(title=title, title_justify="left", show_footer=footer)
    width = min(_NAME_WIDTH, max(map(len, named), default=0))
    for heading in columns:
        is_name = heading == "dispatch"
        justify, fixed = ("left", max(width, len(heading))) if is_name else ("right", None)
        table.add_column(heading, justify=justify, width=fixed, overflow="fold")
    return table


def _entry_table(manifest: Manifest, entry: EntryPoint) -> Table:
    audit = entry.audit
    dispatches = audit.dispatches
    title = f"{entry.name}: {len(dispatches)} dispatches in {max(audit.levels, default=0)} levels"
    columns = ("#", "level", "dispatch", "kind", "kernel", "workgroups", "waves", "rounds", "read", "written")
    table = _table(title, (*columns, "bound", "floor"), (d.name for d in dispatches), footer=True)
    times = [floor_seconds(manifest, dispatch) for dispatch in dispatches]
    total = sum(times) if manifest.target.memory_bandwidth else None
    footers = {"dispatch": "total", "floor": format_seconds(total)}
    footers["read"] = format_bytes(sum(d.bytes_read for d in dispatches))
    footers["written"] = format_bytes(sum(d.bytes_written for d in dispatches))
    for column in table.columns:
        column.footer = footers.get(column.header, "")
    rows = zip(dispatches, audit.levels, times, strict=True)
    for number, (dispatch, level, seconds) in enumerate(rows, 1):
        bound, grid = bound_bytes(dispatch), waves(manifest, dispatch)
        table.add_row(
            str(number),
            str(level),
            dispatch.name,
            Text(dispatch.kind, style=KIND_STYLES[dispatch.kind]),
            "" if dispatch.kernel is None else str(dispatch.kernel + 1),
            " x ".join(map(str, dispatch.workgroups)),
            "" if grid is None else f"{grid:,}",
            format_ratio(rounds(manifest, dispatch)),
            format_bytes(dispatch.bytes_read),
            format_bytes(dispatch.bytes_written),
            format_bytes(bound) if bound > bytes_moved(dispatch) else "",
            format_seconds(seconds),
        )
    return table


def _counters_table(entry: EntryPoint, measurement: Measurement) -> Table:
    title = f"{entry.name}: counted while running, each row sees {measurement.context} tokens"
    columns = ("#", "dispatch", "instructions", "vector", "memory", "matrix operations", "loaded", "stored")
    table = _table(title, (*columns, "moved / needed"), (d.name for d in entry.audit.dispatches))
    rows = zip(entry.audit.dispatches, measurement.dispatches, strict=True)
    for number, (dispatch, counters) in enumerate(rows, 1):
        classes = counters.wave_instructions
        moved, needed = counters.bytes_loaded + counters.bytes_stored, bytes_moved(dispatch)
        table.add_row(
            str(number),
            dispatch.name,
            f"{sum(classes.values()):,}",
            f"{classes['valu']:,}",
            f"{classes['vmem'] + classes['smem']:,}",
            f"{counters.matrix_operations:,}",
            format_bytes(counters.bytes_loaded),
            format_bytes(counters.bytes_stored),
            format_ratio(moved / needed if needed else None),
        )
    return table


def _entry_summary(manifest: Manifest, entry: EntryPoint) -> Text:
    audit = entry.audit
    lines = [
        f"{audit.copies} copies, {audit.fills} fills, {format_bytes(audit.transient_bytes)} transient; in "
        f"place: {', '.join(audit.in_place) or 'none'}"
    ]
    lines += [f"exempted: {item.name} ({item.reason})" for item in audit.exempted]
    lines.append(
        "rounds: how often the grid fills the chip; bound: whole ranges that are bound, where a part of them is needed"
    )
    of_layer: dict[int | None, list] = {}
    for dispatch, layer in zip(audit.dispatches, layers_of_dispatches(audit), strict=True):
        of_layer.setdefault(layer, []).append(dispatch)
    for layer, dispatches in of_layer.items():
        seconds = [floor_seconds(manifest, dispatch) for dispatch in dispatches]
        floor = sum(seconds) if manifest.target.memory_bandwidth else None
        name = "outside layers" if layer is None else f"layer {layer}"
        moved = format_bytes(sum(bytes_moved(dispatch) for dispatch in dispatches))
        lines.append(f"{name}: {len(dispatches)} dispatches, {moved}, floor {format_seconds(floor)}")
    return Text("\n".join(lines) + "\n")


def _resources_table(kernels: Sequence[UsedKernel]) -> Table:
    note = registers_note([used.record for used in kernels])
    title = f"{len(kernels)} kernels: what a launch takes" + (f" ({note})" if note else "")
    return _kernel_table(title, kernels, RESOURCE_HEADINGS, resource_cells)


def _instructions_table(kernels: Sequence[UsedKernel]) -> Table:
    title = f"{len(kernels)} kernels: instructions in the code (loads and stores by bytes of a lane)"
    return _kernel_table(title, kernels, INSTRUCTION_HEADINGS, instruction_cells)


def _kernel_table(
    title: str,
    kernels: Sequence[UsedKernel],
    headings: Sequence[str],
    cells_of: Callable[[KernelRecord], list[str]],
) -> Table:
    table = _table(title, ("#", "dispatch", "rows", *headings), (used.dispatch for used in kernels))
    for number, used in enumerate(kernels, 1):
        table.add_row(str(number), used.dispatch, ", ".join(map(str, used.rows)), *cells_of(used.record))
    return table


def _prediction_table(layers: Sequence[PredictedLayer]) -> Table:
    table = _table("predicted time of a layer", PREDICTION_HEADINGS)
    for row in prediction_rows(layers):
        table.add_row(*row)
    return table
