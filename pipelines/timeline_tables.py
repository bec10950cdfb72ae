"""Tables of the timeline page below the entry points: predicted layers, and what the kernels take."""

from collections.abc import Callable, Sequence
from html import escape

from predecode.pipelines.inspection import UsedKernel, used_kernels
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
from predecode.pipelines.manifest import Manifest
from predecode.pipelines.page_style import name_cell, number_cells, number_heads
from predecode.pipelines.prediction import predicted_layers


def prediction_section(manifest: Manifest) -> str:
    """Predicted time of each layer, with what it assumes; empty where nothing is predicted."""
    layers = predicted_layers(manifest)
    if not layers:
        return ""
    rows = [number_cells(*row) for row in prediction_rows(layers)]
    notes = " ".join(prediction_notes(layers))
    return _section("prediction", "predicted time of a layer", notes, number_heads(PREDICTION_HEADINGS), rows)


def kernel_sections(manifest: Manifest) -> str:
    """Resources and occupancy of each kernel, then its instruction counts; only names where none are known (a CPU)."""
    kernels = used_kernels(manifest)
    if not any(used.record.instructions for used in kernels):
        return _kernel_table("kernels", "kernels", "", kernels, ("source",), lambda kernel: [kernel.source])
    note = registers_note([used.record for used in kernels])
    taken = _kernel_table("kernels", "kernels: what a launch takes", note, kernels, RESOURCE_HEADINGS, resource_cells)
    title, note = "kernels: instructions in the code", "loads and stores by bytes of a lane"
    return taken + _kernel_table("instructions", title, note, kernels, INSTRUCTION_HEADINGS, instruction_cells)


def _kernel_table(
    key: str,
    title: str,
    note: str,
    kernels: Sequence[UsedKernel],
    headings: Sequence[str],
    cells_of: Callable[[KernelRecord], list[str]],
) -> str:
    if not kernels:
        return ""
    heads = f'<th class="right">#</th><th>dispatch</th>{number_heads(("rows", *headings))}'
    rows = []
    for number, used in enumerate(kernels, 1):
        kernel = used.record
        name = name_cell(used.dispatch, f"{kernel.symbol} of {kernel.source}, sha-256 {kernel.sha256}")
        cells = number_cells(", ".join(map(str, used.rows)), *cells_of(kernel))
        rows.append(f'<td class="right soft number">{number}</td>{name}{cells}')
    return _section(key, title, note, heads, rows)


def _section(key: str, title: str, note: str, heads: str, rows: Sequence[str]) -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<section id="{key}"><header><h2>{escape(title)}</h2><span class="soft">{escape(note)}</span></header>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )
