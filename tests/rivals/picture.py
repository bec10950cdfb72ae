"""The report as a picture: what a layer takes, in times of what its bytes ask for."""

from collections.abc import Iterable, Iterator
from html import escape

from predecode.pipelines.quantities import format_seconds
from tests.rivals.page import OURS
from tests.rivals.report import LayerResult, RivalsReport

_MOST = 24.0
"""What takes longer than so many times the floor is left out."""
_LABELS, _PLOT, _FIGURES, _BAR, _HEAD = 230, 520, 150, 22, 34
_STYLE = """
text { font: 13px system-ui, "Segoe UI", sans-serif; fill: #667085; } .rows { font-weight: 600; }
.ours { fill: #14746f; } .other { fill: #c2762c; } .floor { stroke: #667085; stroke-dasharray: 4 3; }
"""


def render_picture(report: RivalsReport) -> str:
    """A self-contained SVG: for each row count ours and, of each kind of rival, the fastest."""
    floors = {rows: floor for rows in report.row_counts if (floor := report.layer_floor(rows))}
    groups = [(rows, floor, _shown(report.layers_of(rows), floor)) for rows, floor in floors.items()]
    longest = max((result.median / floor for _, floor, shown in groups for result in shown), default=1.0)
    unit = _PLOT / max(longest, 1.0)
    parts, top = [], 0
    for rows, floor, shown in groups:
        heading = f"{rows} rows, floor {format_seconds(floor)}"
        parts.append(f'<text class="rows" x="0" y="{top + _HEAD - 12}">{heading}</text>')
        top += _HEAD
        parts += (part for i, r in enumerate(shown) for part in _bar(r, floor, unit, top + i * _BAR))
        bottom = top + len(shown) * _BAR
        line = f'x1="{_LABELS + unit:.1f}" x2="{_LABELS + unit:.1f}" y1="{top - 4}" y2="{bottom}"'
        parts.append(f'<line class="floor" {line}/>')
        top = bottom
    width = _LABELS + _PLOT + _FIGURES
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top + 8}" width="{width}" role="img">'
        f"<style>{_STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _shown(fastest_first: Iterable[LayerResult], floor: float) -> list[LayerResult]:
    of_kind: dict[str, LayerResult] = {}
    for result in fastest_first:
        if result.median is not None and result.median <= _MOST * floor:
            of_kind.setdefault(_kind(result), result)
    return list(of_kind.values())


def _kind(result: LayerResult) -> str:
    """Without the way in which it does the experts."""
    return result.name.split(", ")[0]


def _bar(result: LayerResult, floor: float, unit: float, top: int) -> Iterator[str]:
    times = result.median / floor
    style = "ours" if result.name == OURS else "other"
    yield f'<text x="{_LABELS - 10}" y="{top + 14}" text-anchor="end">{escape(_kind(result))}</text>'
    yield f'<rect class="{style}" x="{_LABELS}" y="{top + 2}" width="{times * unit:.1f}" height="{_BAR - 6}" rx="3"/>'
    figure = f"{format_seconds(result.median)}, {times:.1f} × floor"
    yield f'<text x="{_LABELS + times * unit + 8:.1f}" y="{top + 14}">{figure}</text>'
