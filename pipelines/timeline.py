"""`predecode inspect --html`: a self-contained page with each entry point as a timeline of dispatches."""

from collections.abc import Mapping, Sequence
from html import escape

from predecode.pipelines.inspection import (
    describe_geometry,
    describe_model,
    floor_seconds,
    format_bytes,
    format_seconds,
)
from predecode.pipelines.manifest import Dispatch, EntryPoint, KernelRecord, Manifest
from predecode.pipelines.measurement import Counters, Measurement
from predecode.pipelines.timeline_style import SCRIPT, STYLE

# A longer timeline is broken into lines of this many dispatches.
_LINE = 48
# A block this share of the page's width is wide enough for text.
_TEXT_SHARE = 0.075


def render_page(manifest: Manifest, measured: Mapping[str, Measurement]) -> str:
    """The whole HTML document; ``measured`` has the entry points whose dispatches were counted, by name."""
    entries = manifest.entry_points
    title = escape(f"{manifest.model.name} on {manifest.target.name}")
    links = (
        "".join(f'<a href="#{escape(e.name)}">{escape(e.name)}</a>' for e in entries)
        if len(entries) > 1
        else ""
    )
    sections = "".join(
        _section(manifest, number, entry, measured.get(entry.name)) for number, entry in enumerate(entries)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{title}</h1>"
        f'<div class="soft">{escape(describe_model(manifest))}</div>{_facts(manifest)}<nav>{links}</nav>'
        f"{_legend(manifest)}{sections}{_kernels(manifest.kernels)}"
        f'</main><div id="tip"></div><script>{SCRIPT}</script></body></html>\n'
    )


def _facts(manifest: Manifest) -> str:
    target = manifest.target
    facts = {
        "target": f"{target.name} ({target.device}), {target.element_format}",
        "memory bandwidth": f"{target.memory_bandwidth / 1e12:g} TB/s"
        if target.memory_bandwidth
        else "not quoted",
        "exported for": describe_geometry(manifest),
        "tools": ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())),
    }
    items = "".join(f"<li><span>{escape(key)}</span>{escape(value)}</li>" for key, value in facts.items())
    return f'<ul class="facts">{items}</ul>'


def _legend(manifest: Manifest) -> str:
    width = (
        "floor time: bytes moved at the target's memory bandwidth"
        if manifest.target.memory_bandwidth
        else "bytes moved"
    )
    return (
        '<div class="legend"><span><i style="background:var(--kernel)"></i>hand-written kernel</span>'
        '<span><i style="background:var(--compiled)"></i>compiled reference</span>'
        f"<span>width of a block: {width}; light foot: the part of it that is written</span></div>"
    )


def _section(manifest: Manifest, number: int, entry: EntryPoint, measurement: Measurement | None) -> str:
    dispatches = entry.audit.dispatches
    total = sum(_bytes(d) for d in dispatches)
    seconds = [floor_seconds(manifest, d) for d in dispatches]
    floor = format_seconds(sum(seconds)) if manifest.target.memory_bandwidth and dispatches else "–"
    keys = [f"{number}-{i}" for i in range(len(dispatches))]
    shares = [_bytes(d) / total if total else 0.0 for d in dispatches]
    rows = list(zip(keys, dispatches, seconds, shares, strict=True))
    counters = measurement.dispatches if measurement else (None,) * len(dispatches)
    details = (_detail(*row, counted) for row, counted in zip(rows, counters, strict=True))
    ours = sum(d.kind == "kernel" for d in dispatches)
    return (
        f'<section id="{escape(entry.name)}"><header><h2>{escape(entry.name)}</h2>'
        f'<span class="soft">{entry.rows} row{"s" if entry.rows > 1 else ""}</span>'
        f'<span class="sum"><b>{len(dispatches)}</b> dispatches ({ours} kernels) &nbsp; '
        f"<b>{format_bytes(total)}</b> moved "
        f"&nbsp; floor <b>{floor}</b></span></header>"
        f"{_strips(rows)}"
        '<p class="caption">in order of execution; slivers are drawn a little wider than they are</p>'
        f"{_table(rows, total, floor)}{_audit(entry)}"
        f"{''.join(details)}</section>"
    )


def _bytes(dispatch: Dispatch) -> int:
    return dispatch.bytes_read + dispatch.bytes_written


def _strips(rows: Sequence[tuple]) -> str:
    """The blocks in lines, all to the scale at which the heaviest line fills the page's width."""
    lines = [rows[i : i + _LINE] for i in range(0, len(rows), _LINE)]
    heaviest = max((sum(share for *_, share in line) for line in lines), default=0.0) or 1.0
    return "".join(
        f'<div class="strip">{"".join(_block(*row[:3], row[3] / heaviest) for row in line)}</div>'
        for line in lines
    )


def _block(key: str, dispatch: Dispatch, seconds: float | None, share: float) -> str:
    written = dispatch.bytes_written / _bytes(dispatch) if _bytes(dispatch) else 0.0
    figure = format_seconds(seconds) if seconds is not None else format_bytes(_bytes(dispatch))
    wide = share >= _TEXT_SHARE
    text = f"<span>{escape(dispatch.name)}</span><small>{figure}</small>" if wide else ""
    bare = "" if wide else " bare"
    return (
        f'<div class="block {dispatch.kind}{bare}" data-key="{key}" '
        f'style="--share:{max(share, 1e-6):.6f};--written:{written:.1%}">{text}</div>'
    )


def _table(rows: Sequence[tuple], total: int, floor: str) -> str:
    largest = max((share for *_, share in rows), default=0.0) or 1.0
    body = "".join(
        f'<tr data-key="{key}"><td class="right soft number">{number}</td><td><code>{escape(d.name)}'
        "</code></td>"
        f'<td><span class="chip {d.kind}">{d.kind}</span></td>'
        f'<td class="right number">{" × ".join(map(str, d.workgroups))}</td>'
        f'<td class="right number">{format_bytes(d.bytes_read)}</td>'
        f'<td class="right number">{format_bytes(d.bytes_written)}</td>'
        f'<td class="right number">{format_seconds(seconds)}</td>'
        f'<td class="share"><div><i class="{d.kind}" style="width:{share / largest:.2%}"></i></div></td></tr>'
        for number, (key, d, seconds, share) in enumerate(rows, 1)
    )
    read = format_bytes(sum(d.bytes_read for _, d, _, _ in rows))
    written = format_bytes(sum(d.bytes_written for _, d, _, _ in rows))
    return (
        '<div class="scroll"><table><thead><tr><th class="right">#</th><th>dispatch</th><th>kind</th>'
        '<th class="right">workgroups</th><th class="right">read</th><th class="right">written</th>'
        f'<th class="right">floor</th><th>share</th></tr></thead><tbody>{body}</tbody><tfoot><tr><td>'
        "</td><td>total</td>"
        f'<td></td><td></td><td class="right number">{read}</td><td class="right number">{written}</td>'
        f'<td class="right number">{floor}</td><td></td></tr></tfoot></table></div>'
    )


def _audit(entry: EntryPoint) -> str:
    audit = entry.audit
    counts = "".join(
        f"<b>{count}</b> {what}, " for count, what in ((audit.copies, "copies"), (audit.fills, "fills"))
    )
    exempted = "".join(
        f"<br>exempted: <code>{escape(e.name)}</code> {escape(e.reason)}" for e in audit.exempted
    )
    in_place = ", ".join(f"<code>{escape(name)}</code>" for name in audit.in_place) or "none"
    return (
        f'<p class="audit">{counts}<b>{format_bytes(audit.transient_bytes)}</b> transient; '
        f"written in place: {in_place}{exempted}</p>"
    )


def _detail(
    key: str, dispatch: Dispatch, seconds: float | None, share: float, counted: Counters | None
) -> str:
    bindings = "".join(
        f"<tr><td>{escape(b.name)}</td><td>{escape(b.access.replace('_', ' and '))}</td>"
        f"<td>{format_bytes(b.bytes)}</td></tr>"
        for b in dispatch.bindings
    )
    return (
        f'<template id="detail-{key}"><b>{escape(dispatch.name)}</b><br>{dispatch.kind}, '
        f"{' × '.join(map(str, dispatch.workgroups))} workgroups<br>read "
        f"{format_bytes(dispatch.bytes_read)}, "
        f"written {format_bytes(dispatch.bytes_written)}, floor {format_seconds(seconds)} ({share:.1%})"
        f"{_counted(counted)}<table>{bindings}</table></template>"
    )


def _counted(counters: Counters | None) -> str:
    if counters is None:
        return ""
    return (
        f"<br>counted while running: {sum(counters.wave_instructions.values()):,} wave instructions, "
        f"{counters.matrix_operations:,} matrix operations, loaded {format_bytes(counters.bytes_loaded)}, "
        f"stored {format_bytes(counters.bytes_stored)}"
    )


def _kernels(kernels: Sequence[KernelRecord]) -> str:
    if not kernels:
        return ""
    names = sorted({name for kernel in kernels for name in kernel.resources})
    head = "".join(f'<th class="right">{escape(name.replace("_", " "))}</th>' for name in names)
    body = "".join(
        f"<tr><td><code>{escape(k.symbol)}</code></td><td><code>{escape(k.source)}</code></td>"
        + "".join(f'<td class="right number">{k.resources.get(name, "")}</td>' for name in names)
        + f'<td><code class="soft">{k.sha256[:12]}</code></td></tr>'
        for k in kernels
    )
    return (
        '<section id="kernels"><header><h2>kernels</h2><span class="soft">what each code object '
        "declares</span></header>"
        f'<div class="scroll"><table><thead><tr><th>symbol</th><th>source</th>{head}<th>sha-256</th>'
        "</tr></thead>"
        f"<tbody>{body}</tbody></table></div></section>"
    )
