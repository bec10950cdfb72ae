"""Table rows that `inspect` shows on a terminal and on its page alike."""

from collections.abc import Sequence
from itertools import groupby

from predecode.pipelines.kernel_record import KernelRecord
from predecode.pipelines.prediction import ASSUMPTIONS, CHIPS, PredictedLayer, rival_summary
from predecode.pipelines.quantities import format_bytes, format_seconds, format_widths

RESOURCE_HEADINGS = (
    "vector (accumulator) registers",
    "scalar registers",
    "spills",
    "workgroup memory",
    "at once on a compute unit",
    "waves per SIMD",
    "limited by",
)
INSTRUCTION_HEADINGS = (
    "all",
    "matrix",
    "global loads",
    "global stores",
    "scalar loads",
    "atomics",
    "workgroup memory",
    "barriers",
)
PREDICTION_HEADINGS = (
    "rows",
    "layers",
    "dispatches",
    "levels",
    "bytes",
    *(f"{chip.name} {what}" for chip in CHIPS for what in ("floor", "predicted")),
)


def resource_cells(kernel: KernelRecord) -> list[str]:
    """What a launch of a GPU kernel takes, under RESOURCE_HEADINGS."""
    resources, occupancy = kernel.resources, kernel.occupancy
    accumulators, scalar = resources.accumulator_registers, resources.scalar_registers
    return [
        str(resources.vector_registers) + ("" if accumulators is None else f" ({accumulators})"),
        "–" if scalar is None else str(scalar),
        str(resources.register_spills),
        format_bytes(resources.shared_memory_bytes),
        f"{occupancy.workgroups_per_compute_unit} × {kernel.waves_per_workgroup} waves",
        f"{occupancy.waves_per_simd:g}",
        occupancy.limited_by,
    ]


def instruction_cells(kernel: KernelRecord) -> list[str]:
    """Instructions in a GPU kernel's code, under INSTRUCTION_HEADINGS."""
    counts = kernel.instructions
    return [
        f"{counts.total:,}",
        str(counts.matrix),
        format_widths(counts.loads),
        format_widths(counts.stores),
        *(str(n) for n in (counts.scalar_loads, counts.atomics, counts.shared_memory, counts.barriers)),
    ]


def registers_note(kernels: Sequence[KernelRecord]) -> str:
    """What to say where the embedded code does not tell a kernel's registers; else nothing."""
    assembled = any(kernel.resources and kernel.resources.scalar_registers is None for kernel in kernels)
    return "registers are ptxas's; the driver assembles the PTX again" if assembled else ""


def prediction_rows(layers: Sequence[PredictedLayer]) -> list[list[str]]:
    """Predicted layers under PREDICTION_HEADINGS, neighbours of the same cost in one row."""
    rows = []
    alike = groupby(layers, lambda layer: (layer.rows, len(layer.dispatches), layer.levels, layer.bytes))
    for (row_count, dispatches, levels, moved), group in alike:
        first, *others = group
        last = others[-1] if others else first
        span = str(first.layer) if first is last else f"{first.layer} to {last.layer}"
        seconds = [f(chip) for chip in CHIPS for f in (first.floor_seconds, first.predicted_seconds)]
        figures = [str(row_count), span, str(dispatches), str(levels), format_bytes(moved)]
        rows.append(figures + [format_seconds(s) for s in seconds])
    return rows


def prediction_notes(layers: Sequence[PredictedLayer]) -> list[str]:
    """What the predictions assume, and what was published of another implementation of such a layer."""
    notes = [ASSUMPTIONS]
    if any(layer.rival is not None for layer in layers):
        notes.append(f"Published elsewhere: {rival_summary()}")
    return notes
