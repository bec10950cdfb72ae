"""`predecode inspect --html`: a self-contained page with each entry point as a timeline of dispatches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from predecode.pipelines.inspection import (
    bound_bytes,
    describe_geometry,
    describe_model,
    floor_seconds,
    rounds,
    waves,
)
from predecode.pipelines.layer_of_dispatch import layers_of_dispatches
from predecode.pipelines.manifest import Binding, Dispatch, EntryPoint, Manifest
from predecode.pipelines.measurement import Counters, Measurement
from predecode.pipelines.page_style import document, facts_list, name_cell, number_cells, number_heads
from predecode.pipelines.prediction import bytes_moved
from predecode.pipelines.quantities import format_bytes, format_ratio, format_seconds
from predecode.pipelines.timeline_tables import kernel_sections, prediction_section

_SCRIPT = """
const tip = document.getElementById('tip');
const parts = key => document.querySelectorAll('[data-key="' + key + '"]');
document.querySelectorAll('[data-key]').forEach(part => {
  const template = document.getElementById('detail-' + part.dataset.key);
  part.addEventListener('mouseenter', () => {
    parts(part.dataset.key).forEach(p => p.classList.add('lit'));
    tip.replaceChildren(template.content.cloneNode(true));
    tip.style.display = 'block';
  });
  part.addEventListener('mousemove', event => {
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 16, innerWidth - box.width - 12)) + 'px';
    const below = event.clientY + 18;
    tip.style.top = (below + box.height > innerHeight ? event.clientY - box.height - 14 : below) + 'px';
  });
  part.addEventListener('mouseleave', () => {
    parts(part.dataset.key).forEach(p => p.classList.remove('lit'));
    tip.style.display = 'none';
  });
});
"""

# A longer timeline is broken into lines of this many levels.
_LINE = 48
# A column this share of the page's width is wide enough for text.
_TEXT_SHARE = 0.075
# A block this share of its column's height is high enough for a name, and for a second line.
_TEXT_HEIGHT, _FIGURE_HEIGHT = 0.25, 0.5


@dataclass(frozen=True, slots=True)
class _Row:
    """A dispatch on the page; ``share`` is its part of the entry point's bytes."""

    key: str
    dispatch: Dispatch
    level: int
    layer: int | None
    seconds: float | None
    share: float
    waves: int | None
    rounds: float | None


def render_page(manifest: Manifest, measured: Mapping[str, Measurement]) -> str:
    """The whole HTML document; ``measured`` has the entry points whose dispatches were counted, by name."""
    entries = manifest.entry_points
    links = "".join(f'<a href="#{escape(e.name)}">{escape(e.name)}</a>' for e in entries) if len(entries) > 1 else ""
    sections = "".join(
        _section(manifest, number, entry, measured.get(entry.name)) for number, entry in enumerate(entries)
    )
    body = (
        f'<div class="soft">{escape(describe_model(manifest))}</div>{_facts(manifest)}<nav>{links}</nav>'
        f"{_legend(manifest)}{sections}{prediction_section(manifest)}{kernel_sections(manifest)}"
    )
    title = f"{manifest.model.name} on {manifest.target.name}"
    return document(title, body, after=f'<div id="tip"></div><script>{_SCRIPT}</script>')


def _facts(manifest: Manifest) -> str:
    target = manifest.target
    facts = {
        "target": f"{target.name} ({target.device}), {target.element_format}",
        "memory bandwidth": f"{target.memory_bandwidth / 1e12:g} TB/s" if target.memory_bandwidth else "not quoted",
        "exported for": describe_geometry(manifest),
        "tools": ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())),
    }
    return facts_list(facts)


def _legend(manifest: Manifest) -> str:
    width = (
        "floor time: bytes moved at the target's memory bandwidth"
        if manifest.target.memory_bandwidth
        else "bytes moved"
    )
    return (
        '<div class="legend"><span><i style="background:var(--kernel)"></i>hand-written kernel</span>'
        '<span><i style="background:var(--compiled)"></i>compiled reference</span>'
        f"<span>area of a block: {width}; light foot: the part of it that is written</span></div>"
    )


def _rows(manifest: Manifest, number: int, entry: EntryPoint) -> list[_Row]:
    audit = entry.audit
    total = sum(bytes_moved(dispatch) for dispatch in audit.dispatches)
    places = zip(audit.dispatches, audit.levels, layers_of_dispatches(audit), strict=True)
    return [
        _Row(
            key=f"{number}-{i}",
            dispatch=dispatch,
            level=level,
            layer=layer,
            seconds=floor_seconds(manifest, dispatch),
            share=bytes_moved(dispatch) / total if total else 0.0,
            waves=waves(manifest, dispatch),
            rounds=rounds(manifest, dispatch),
        )
        for i, (dispatch, level, layer) in enumerate(places)
    ]


def _section(manifest: Manifest, number: int, entry: EntryPoint, measurement: Measurement | None) -> str:
    rows = _rows(manifest, number, entry)
    total = format_bytes(sum(bytes_moved(row.dispatch) for row in rows))
    floor = format_seconds(sum(row.seconds for row in rows)) if manifest.target.memory_bandwidth and rows else "–"
    counters = measurement.dispatches if measurement else (None,) * len(rows)
    details = (_detail(row, counted) for row, counted in zip(rows, counters, strict=True))
    ours = sum(row.dispatch.kind == "kernel" for row in rows)
    levels = max((row.level for row in rows), default=0)
    return (
        f'<section id="{escape(entry.name)}"><header><h2>{escape(entry.name)}</h2>'
        f'<span class="soft">{entry.rows} row{"s" if entry.rows > 1 else ""}</span>'
        f'<span class="sum"><b>{len(rows)}</b> dispatches ({ours} kernels) in <b>{levels}</b> levels &nbsp; '
        f"<b>{total}</b> moved &nbsp; floor <b>{floor}</b></span></header>"
        f"{_strips(rows)}"
        '<p class="caption">columns are levels: dispatches of one column need nothing of each other, only of columns '
        "before; slivers are drawn a little wider than they are</p>"
        f"{_table(rows, floor)}{_audit(entry)}{''.join(details)}</section>"
    )


def _strips(rows: Sequence[_Row]) -> str:
    """The levels in lines, all to the scale at which the heaviest line fills the page's width."""
    of_level: dict[int, list[_Row]] = {}
    for row in rows:
        of_level.setdefault(row.level, []).append(row)
    levels = [of_level[level] for level in sorted(of_level)]
    lines = [levels[i : i + _LINE] for i in range(0, len(levels), _LINE)]
    heaviest = max((sum(row.share for level in line for row in level) for line in lines), default=0.0) or 1.0
    return "".join(f'<div class="strip">{"".join(_column(level, heaviest) for level in line)}</div>' for line in lines)


def _column(level: Sequence[_Row], heaviest: float) -> str:
    moved = sum(row.share for row in level)
    width = moved / heaviest
    blocks = "".join(_block(row, width, row.share / moved if moved else 1 / len(level)) for row in level)
    return f'<div class="level" style="--share:{max(width, 1e-6):.6f}">{blocks}</div>'


def _block(row: _Row, width: float, height: float) -> str:
    dispatch, moved = row.dispatch, bytes_moved(row.dispatch)
    written = dispatch.bytes_written / moved if moved else 0.0
    figure = format_seconds(row.seconds) if row.seconds is not None else format_bytes(moved)
    wide = width >= _TEXT_SHARE and height >= _TEXT_HEIGHT
    text = f"<span>{escape(dispatch.name)}</span>" if wide else ""
    text += f"<small>{figure}</small>" if wide and height >= _FIGURE_HEIGHT else ""
    bare = "" if wide else " bare"
    return (
        f'<div class="block {dispatch.kind}{bare}" data-key="{row.key}" '
        f'style="--part:{max(height, 1e-6):.6f};--written:{written:.1%}">{text}</div>'
    )


def _table(rows: Sequence[_Row], floor: str) -> str:
    largest = max((row.share for row in rows), default=0.0) or 1.0
    body = "".join(_table_row(number, row, largest) for number, row in enumerate(rows, 1))
    numbers = ("workgroups", "waves", "rounds", "read", "written", "bound", "floor")
    sums = [sum(row.dispatch.bytes_read for row in rows), sum(row.dispatch.bytes_written for row in rows)]
    foot = number_cells("", "", "", *map(format_bytes, sums), "", floor)
    return (
        '<div class="scroll"><table><thead><tr><th class="right">#</th><th class="right">level</th>'
        f"<th>dispatch</th><th>kind</th>{number_heads(numbers)}<th>share</th></tr></thead><tbody>{body}</tbody>"
        f"<tfoot><tr><td></td><td></td><td>total</td><td></td>{foot}<td></td></tr></tfoot></table></div>"
    )


def _table_row(number: int, row: _Row, largest: float) -> str:
    dispatch, bound = row.dispatch, bound_bytes(row.dispatch)
    cells = [
        " × ".join(map(str, dispatch.workgroups)),
        "" if row.waves is None else f"{row.waves:,}",
        format_ratio(row.rounds),
        format_bytes(dispatch.bytes_read),
        format_bytes(dispatch.bytes_written),
        format_bytes(bound) if bound > bytes_moved(dispatch) else "",
        format_seconds(row.seconds),
    ]
    return (
        f'<tr data-key="{row.key}"><td class="right soft number">{number}</td>'
        f'<td class="right soft number">{row.level}</td>{name_cell(dispatch.name)}'
        f'<td><span class="chip {dispatch.kind}">{dispatch.kind}</span></td>{number_cells(*cells)}'
        f'<td class="share"><div><i class="{dispatch.kind}" style="width:{row.share / largest:.2%}"></i></div></td>'
        "</tr>"
    )


def _audit(entry: EntryPoint) -> str:
    audit = entry.audit
    counts = "".join(f"<b>{count}</b> {what}, " for count, what in ((audit.copies, "copies"), (audit.fills, "fills")))
    exempted = "".join(f"<br>exempted: <code>{escape(e.name)}</code> {escape(e.reason)}" for e in audit.exempted)
    in_place = ", ".join(f"<code>{escape(name)}</code>" for name in audit.in_place) or "none"
    return (
        f'<p class="audit">{counts}<b>{format_bytes(audit.transient_bytes)}</b> transient; '
        f"written in place: {in_place}{exempted}</p>"
    )


def _detail(row: _Row, counted: Counters | None) -> str:
    dispatch = row.dispatch
    bindings = "".join(
        f"<tr><td>{escape(b.name)}</td><td>{escape(b.access.replace('_', ' and '))}</td><td>{_moved_of(b)}</td></tr>"
        for b in dispatch.bindings
    )
    of_layer = "" if row.layer is None else f" of layer {row.layer}"
    after = ", ".join(str(i + 1) for i in dispatch.after) or "none"
    return (
        f'<template id="detail-{row.key}"><b>{escape(dispatch.name)}</b>{of_layer}<br>{dispatch.kind}, '
        f"{' × '.join(map(str, dispatch.workgroups))} workgroups<br>level {row.level}, reads results of {after}<br>"
        f"read {format_bytes(dispatch.bytes_read)}, written {format_bytes(dispatch.bytes_written)}, "
        f"floor {format_seconds(row.seconds)} ({row.share:.1%})"
        f"{_counted(counted)}<table>{bindings}</table></template>"
    )


def _moved_of(binding: Binding) -> str:
    moved = format_bytes(binding.bytes)
    return f"{moved} of {format_bytes(binding.bound_bytes)}" if binding.bound_bytes else moved


def _counted(counters: Counters | None) -> str:
    if counters is None:
        return ""
    return (
        f"<br>counted while running: {sum(counters.wave_instructions.values()):,} wave instructions, "
        f"{counters.matrix_operations:,} matrix operations, loaded {format_bytes(counters.bytes_loaded)}, "
        f"stored {format_bytes(counters.bytes_stored)}"
    )
