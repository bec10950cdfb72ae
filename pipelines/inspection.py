"""`predecode inspect`: what an artifact's entry points do, from its manifest."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

from rich.console import Console

from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.kernel_record import KernelRecord
from predecode.pipelines.layer_of_dispatch import layers_of_dispatches
from predecode.pipelines.manifest import Dispatch, EntryPoint, Manifest
from predecode.pipelines.measurement import Measurement, measure
from predecode.pipelines.prediction import CHIPS, PredictedLayer, predicted_layers
from predecode.pipelines.records import encode

KIND_STYLES = {"kernel": "cyan", "compiled": "yellow"}


@dataclass(frozen=True, slots=True)
class Inspection:
    """An artifact's manifest, and the counters of its dispatches where they were taken, ready to be shown."""

    manifest: Manifest
    measured: Mapping[str, Measurement] = field(default_factory=dict)

    def to_json(self) -> str:
        """Keys: target, model, kernels, predicted layers, and per entry point its name, rows, dispatches and the rest
        of its audit."""
        manifest = self.manifest
        document = {
            "target": manifest.target.name,
            "model": manifest.model.name,
            "entry_points": [
                _entry_json(manifest, entry, self.measured.get(entry.name)) for entry in manifest.entry_points
            ],
            "kernels": encode(manifest.kernels),
            "predicted_layers": [_prediction_json(layer) for layer in predicted_layers(manifest)],
        }
        return json.dumps(document, indent=1, sort_keys=True)

    def to_html(self) -> str:
        """A self-contained page: every entry point as a timeline of dispatches."""
        from predecode.pipelines.timeline import render_page

        return render_page(self.manifest, self.measured)

    def print_to(self, console: Console) -> None:
        """Tables for a terminal."""
        from predecode.pipelines.inspection_tables import tables

        for part in tables(self.manifest, self.measured):
            console.print(part)


def inspect(folder: Path | str, device: str | None = None, rows: Sequence[int] | None = None) -> Inspection:
    """Read the manifest of the artifact in ``folder``; needs no device and no other file of it.

    Only entry points of ``rows`` are shown (default: all). With ``device`` "emulated" each is also run once, and its
    dispatches are counted.
    """
    manifest = read_manifest(Path(folder))
    chosen = manifest.chosen_rows(rows)
    shown = replace(manifest, entry_points=tuple(entry for entry in manifest.entry_points if entry.rows in chosen))
    return Inspection(shown, measure(folder, device, chosen) if device else {})


def floor_seconds(manifest: Manifest, dispatch: Dispatch) -> float | None:
    """Least time for the dispatch's bytes at the target's memory bandwidth; None where none is quoted."""
    bandwidth = manifest.target.memory_bandwidth
    return (dispatch.bytes_read + dispatch.bytes_written) / bandwidth if bandwidth else None


def bound_bytes(dispatch: Dispatch) -> int:
    """Bytes of all ranges that the dispatch is bound to: more than it moves where it needs only a part of one."""
    return sum(binding.bound_bytes or binding.bytes for binding in dispatch.bindings)


def waves(manifest: Manifest, dispatch: Dispatch) -> int | None:
    """Waves of the whole grid; None where the workgroup's size is not known (a compiled dispatch, a CPU)."""
    record = manifest.kernels[dispatch.kernel] if dispatch.kernel is not None else None
    if record is None or record.waves_per_workgroup is None:
        return None
    return math.prod(dispatch.workgroups) * record.waves_per_workgroup


def rounds(manifest: Manifest, dispatch: Dispatch) -> float | None:
    """How many times the grid fills the whole chip at the kernel's occupancy; below one, a part of it idles."""
    record = manifest.kernels[dispatch.kernel] if dispatch.kernel is not None else None
    if record is None or record.occupancy is None or not manifest.target.compute_units:
        return None
    at_once = record.occupancy.workgroups_per_compute_unit * manifest.target.compute_units
    return math.prod(dispatch.workgroups) / at_once


@dataclass(frozen=True, slots=True)
class UsedKernel:
    """A kernel of the module, the ``dispatch`` that runs it as it is named, and ``rows``, of which entry points."""

    record: KernelRecord
    dispatch: str
    rows: tuple[int, ...]


def used_kernels(manifest: Manifest) -> list[UsedKernel]:
    """The manifest's kernels, each with what runs it: by name and rows."""
    names: dict[int, str] = {}
    rows: dict[int, set[int]] = {}
    for entry in manifest.entry_points:
        for dispatch in entry.audit.dispatches:
            if dispatch.kernel is not None:
                names.setdefault(dispatch.kernel, dispatch.name)
                rows.setdefault(dispatch.kernel, set()).add(entry.rows)
    used = [UsedKernel(manifest.kernels[i], name, tuple(sorted(rows[i]))) for i, name in names.items()]
    return sorted(used, key=attrgetter("dispatch", "rows"))


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
                "bytes_bound": bound_bytes(dispatch),
                "bindings": encode(dispatch.bindings),
                "floor_seconds": floor_seconds(manifest, dispatch),
                "layer": layer,
                "level": level,
                "after": list(dispatch.after),
                "kernel": dispatch.kernel,
                "waves": waves(manifest, dispatch),
                "rounds": rounds(manifest, dispatch),
            }
            for dispatch, layer, level in zip(audit.dispatches, layers_of_dispatches(audit), audit.levels, strict=True)
        ],
        "levels": max(audit.levels, default=0),
        "copies": audit.copies,
        "fills": audit.fills,
        "transient_bytes": audit.transient_bytes,
        "in_place": list(audit.in_place),
        "exempted": [{"name": item.name, "reason": item.reason} for item in audit.exempted],
    }


def _prediction_json(layer: PredictedLayer) -> dict:
    chips = {
        chip.name: {"floor_seconds": layer.floor_seconds(chip), "predicted_seconds": layer.predicted_seconds(chip)}
        for chip in CHIPS
    }
    return {
        "layer": layer.layer,
        "rows": layer.rows,
        "dispatches": len(layer.dispatches),
        "levels": layer.levels,
        "bytes": layer.bytes,
        "chips": chips,
    }
