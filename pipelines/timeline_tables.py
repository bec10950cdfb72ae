"""Tables of the timeline page below the entry points: predicted layers, and what the kernels take."""

from collections.abc import Sequence
from html import escape

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
from predecode.pipelines.prediction import predicted_layers


def prediction_section(manifest: Manifest) -> str:
    """Predicted time of each layer, with what it assumes; empty where nothing is predicted."""
    layers = predicted_layers(manifest)
    if not layers:
        return ""
    rows = ["".join(_number(cell) for cell in row) for row in prediction_rows(layers)]
    notes = " ".join(prediction_notes(layers))
    return _section("prediction", "predicted time of a layer", notes, _heads(PREDICTION_HEADINGS), rows)


def kernel_section(kernels: Sequence[KernelRecord]) -> str:
    """Resources, occupancy and instruction counts of each kernel; only names where none are known (a CPU)."""
    if not kernels:
        return ""
    known = any(kernel.instructions for kernel in kernels)
    heads = '<th class="right">#</th><th>symbol</th>'
    heads += _heads((*RESOURCE_HEADINGS, *INSTRUCTION_HEADINGS)) if known else "<th>source</th>"
    rows = [_kernel_row(number, kernel) for number, kernel in enumerate(kernels, 1)]
    notes = ["what each code object declares and holds; loads and stores by bytes of a lane"]
    return _section("kernels", "kernels", "; ".join(filter(None, [*notes, registers_note(kernels)])), heads, rows)


def _kernel_row(number: int, kernel: KernelRecord) -> str:
    origin = escape(f"{kernel.source}, sha-256 {kernel.sha256}")
    row = f'<td class="right soft number">{number}</td><td><code title="{origin}">{escape(kernel.symbol)}</code></td>'
    if kernel.instructions is None:
        return f"{row}<td><code>{escape(kernel.source)}</code></td>"
    return row + "".join(_number(cell) for cell in (*resource_cells(kernel), *instruction_cells(kernel)))


def _number(cell: str) -> str:
    return f'<td class="right number">{escape(cell)}</td>'


def _heads(headings: Sequence[str]) -> str:
    return "".join(f'<th class="right">{escape(heading)}</th>' for heading in headings)


def _section(key: str, title: str, note: str, heads: str, rows: Sequence[str]) -> str:
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<section id="{key}"><header><h2>{escape(title)}</h2><span class="soft">{escape(note)}</span></header>'
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )
