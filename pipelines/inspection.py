"""`predecode inspect`: what an artifact's entry points do, from its manifest."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.manifest import Dispatch, EntryPoint, KernelRecord, Manifest
from predecode.pipelines.measurement import Measurement, measure
from predecode.pipelines.records import encode

KIND_STYLES = {"kernel": "cyan", "compiled": "yellow"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """An artifact's manifest, and the counters of its dispatches where they were taken, ready to be shown."""

    manifest: Manifest
    measured: Mapping[str, Measurement] = field(default_factory=dict)

    def to_json(self) -> str:
        """Keys: target, model, and per entry point its name, rows, dispatches and the rest of its audit."""
        manifest = self.manifest
        document = {
            "target": manifest.target.name,
            "model": manifest.model.name,
            "entry_points": [
                _entry_json(manifest, entry, self.measured.get(entry.name)) for entry in manifest.entry_points
            ],
        }
        return json.dumps(document, indent=1, sort_keys=True)

    def to_html(self) -> str:
        """A self-contained page: every entry point as a timeline of dispatches."""
        from predecode.pipelines.timeline import render_page

        return render_page(self.manifest, self.measured)

    def print_to(self, console: Console) -> None:
        """Tables for a terminal."""
        for part in _renderables(self.manifest, self.measured):
            console.print(part)


def inspect(folder: Path | str, device: str | None = None) -> Inspection:
    """Read the manifest of the artifact in ``folder``; needs no device and no other file of it.

    With ``device`` "emulated" every entry point is also run once, and its dispatches are counted.
    """
    return Inspection(read_manifest(Path(folder)), measure(folder, device) if device else {})


def floor_seconds(manifest: Manifest, dispatch: Dispatch) -> float | None:
    """Least time for the dispatch's bytes at the target's memory bandwidth; None where none is quoted."""
    bandwidth = manifest.target.memory_bandwidth
    return (dispatch.bytes_read + dispatch.bytes_written) / bandwidth if bandwidth else None


def format_bytes(count: int) -> str:
    """Such as 1.5 MB; decimal units, as bandwidths are quoted in."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
        value /= 1000
    raise AssertionError


def format_seconds(seconds: float | None) -> str:
    """Such as 12.30 µs; a dash for None."""
    if seconds is None:
        return "–"
    microseconds = seconds * 1e6
    digits = 3 if microseconds < 1 else 2 if microseconds < 100 else 0
    return f"{microseconds:.{digits}f} µs"


def describe_model(manifest: Manifest) -> str:
    """One line: which part of which model, for what."""
    model = manifest.model
    parts = [model.name, "whole decode step"]
    if model.layers is not None:
        parts[1] = ("layer " if len(model.layers) == 1 else "layers ") + ", ".join(map(str, model.layers))
    if model.tensor_parallel > 1:
        parts.append(f"rank {model.rank} of {model.tensor_parallel} (reduce {model.reduce})")
    return ", ".join(parts)


def describe_geometry(manifest: Manifest) -> str:
    """One line: what sizes it was exported for."""
    geometry = manifest.geometry
    return (
        f"context {geometry.max_context} tokens, pool of {geometry.pages} pages of {geometry.page_tokens} "
        f"tokens, rows {', '.join(map(str, manifest.row_counts))}"
    )


def _entry_json(manifest: Manifest, entry: EntryPoint, measurement: Measurement | None) -> dict:
    audit = entry.audit
    counted = {"measured": encode(measurement)} if measurement else {}
    return counted | {
        "name": entry.name,
        "segment": entry.segment,
        "rows": entry.rows,
        "dispatches": [
            {
                "name": dispatch.name,
                "kind": dispatch.kind,
                "workgroups": list(dispatch.workgroups),
                "bytes_read": dispatch.bytes_read,
                "bytes_written": dispatch.bytes_written,
                "floor_seconds": floor_seconds(manifest, dispatch),
            }
            for dispatch in audit.dispatches
        ],
        "copies": audit.copies,
        "fills": audit.fills,
        "transient_bytes": audit.transient_bytes,
        "in_place": list(audit.in_place),
        "exempted": [{"name": item.name, "reason": item.reason} for item in audit.exempted],
    }


def _renderables(manifest: Manifest, measured: Mapping[str, Measurement]) -> Iterator[RenderableType]:
    target = manifest.target
    yield Group(
        Text(describe_model(manifest), style="bold"),
        Text(
            f"{target.name} ({target.arch}, {target.device}), {target.element_format}; "
            f"{describe_geometry(manifest)}"
        ),
        Text(", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())), style="dim"),
        Text(),
    )
    for entry in manifest.entry_points:
        yield _entry_table(manifest, entry)
        if entry.name in measured:
            yield _counters_table(entry, measured[entry.name])
        yield _entry_summary(entry)
    if manifest.kernels:
        yield _kernel_table(manifest.kernels)


def _entry_table(manifest: Manifest, entry: EntryPoint) -> Table:
    dispatches = entry.audit.dispatches
    times = [floor_seconds(manifest, dispatch) for dispatch in dispatches]
    table = Table(title=f"{entry.name}: {len(dispatches)} dispatches", title_justify="left", show_footer=True)
    table.add_column("#", justify="right")
    table.add_column("dispatch", footer="total", no_wrap=True)
    table.add_column("kind")
    table.add_column("workgroups", justify="right")
    table.add_column("read", justify="right", footer=format_bytes(sum(d.bytes_read for d in dispatches)))
    table.add_column(
        "written", justify="right", footer=format_bytes(sum(d.bytes_written for d in dispatches))
    )
    total = sum(times) if manifest.target.memory_bandwidth else None
    table.add_column("floor", justify="right", footer=format_seconds(total))
    for number, (dispatch, seconds) in enumerate(zip(dispatches, times, strict=True), 1):
        table.add_row(
            str(number),
            dispatch.name,
            Text(dispatch.kind, style=KIND_STYLES[dispatch.kind]),
            " x ".join(map(str, dispatch.workgroups)),
            format_bytes(dispatch.bytes_read),
            format_bytes(dispatch.bytes_written),
            format_seconds(seconds),
        )
    return table


def _counters_table(entry: EntryPoint, measurement: Measurement) -> Table:
    title = f"{entry.name}: counted while running, each row sees {measurement.context} tokens"
    table = Table(title=title, title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("dispatch", no_wrap=True)
    for heading in ("instructions", "vector", "memory", "matrix operations", "loaded", "stored"):
        table.add_column(heading, justify="right")
    for number, (dispatch, counters) in enumerate(
        zip(entry.audit.dispatches, measurement.dispatches, strict=True), 1
    ):
        classes = counters.wave_instructions
        table.add_row(
            str(number),
            dispatch.name,
            f"{sum(classes.values()):,}",
            f"{classes['valu']:,}",
            f"{classes['vmem'] + classes['smem']:,}",
            f"{counters.matrix_operations:,}",
            format_bytes(counters.bytes_loaded),
            format_bytes(counters.bytes_stored),
        )
    return table


def _entry_summary(entry: EntryPoint) -> Text:
    audit = entry.audit
    lines = [
        f"{audit.copies} copies, {audit.fills} fills, {format_bytes(audit.transient_bytes)} transient; in "
        f"place: {', '.join(audit.in_place) or 'none'}"
    ]
    lines += [f"exempted: {item.name} ({item.reason})" for item in audit.exempted]
    return Text("\n".join(lines) + "\n")


def _kernel_table(kernels: tuple[KernelRecord, ...]) -> Table:
    names = sorted({name for kernel in kernels for name in kernel.resources})
    table = Table(title=f"{len(kernels)} kernels", title_justify="left")
    table.add_column("symbol", no_wrap=True)
    for name in names:
        table.add_column(name.replace("_", " "), justify="right")
    for kernel in kernels:
        table.add_row(kernel.symbol, *(str(kernel.resources.get(name, "")) for name in names))
    return table
