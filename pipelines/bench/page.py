"""`predecode bench --html`: a self-contained page with time per layer and every dispatch against its floor."""

from collections.abc import Sequence
from html import escape

from predecode.pipelines.bench.launches import describe_launches
from predecode.pipelines.bench.plot import Line, line_plot
from predecode.pipelines.bench.report import BenchReport, DispatchGroup, RunReport, group_dispatches
from predecode.pipelines.page_style import bar_cell, document, facts_list, name_cell, number_cells, number_heads
from predecode.pipelines.quantities import format_bytes, format_seconds

_STYLE = """
svg { width: 100%; min-width: 640px; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
svg .axis { stroke: var(--line); } svg .line { fill: none; stroke-width: 2; }
svg .c0 { stroke: var(--kernel); fill: var(--kernel); } svg .c1 { stroke: var(--soft); fill: var(--soft); }
svg .c2 { stroke: var(--compiled); fill: var(--compiled); } svg .c3 { stroke: var(--ink); fill: var(--ink); }
svg .dashed { stroke-dasharray: 5 4; } svg .dotted { stroke-dasharray: 1 4; } svg text.label { stroke: none; }
"""


def render_page(report: BenchReport) -> str:
    """The whole HTML document."""
    facts = {
        "artifact": f"{report.part}, {report.target}",
        "device": f"{report.device_name} ({report.device})",
        "date": report.date,
        "memory read in this run": f"{report.bandwidth / 1e9:.1f} GB/s, {format_bytes(report.bandwidth_bytes)} in turn",
        "a launch that only reads": describe_launches(report.launches) or "not timed",
        "tools": ", ".join(f"{name} {version}" for name, version in sorted(report.tools.items())),
    }
    runs = "".join(_run(report, run) for run in report.runs)
    body = f'{facts_list(facts)}<p class="audit">{escape(report.method)}</p>{_layers(report)}{runs}'
    return document(f"{report.model} on {report.device_name}", body, style=_STYLE)


def _layers(report: BenchReport) -> str:
    """Time per layer over rows, one line per context, with its floor and that of its launches."""
    contexts = dict.fromkeys(run.context for run in report.runs)
    lines = []
    for context in contexts:
        runs = sorted((run for run in report.runs if run.context == context), key=lambda run: run.rows)
        label = "ragged contexts" if context == "ragged" else f"context {context}"
        rows = [run.rows for run in runs]
        floors, launches = [run.floor for run in runs], [run.launch_floor for run in runs]
        lines.append(Line(label, rows, _per_layer(runs, [run.step for run in runs])))
        lines.append(Line(f"{label}, floor", rows, _per_layer(runs, floors), "dashed"))
        if None not in launches:
            lines.append(Line(f"{label}, launch floor", rows, _per_layer(runs, launches), "dotted"))
    what = "layer" if report.runs[0].layers else "step"
    plot = f'<div class="scroll">{line_plot(lines, "rows", f"µs per {what}")}</div>'
    return f"<section><header><h2>time per {what}</h2></header>{plot}{_totals(report)}</section>"


def _per_layer(runs: Sequence[RunReport], seconds: Sequence[float]) -> list[float]:
    """Microseconds of a layer, of ``seconds`` of each of ``runs``' steps."""
    return [1e6 * value / (run.layers or 1) for run, value in zip(runs, seconds, strict=True)]


def _totals(report: BenchReport) -> str:
    body = "".join(f"<tr>{_total_cells(run)}</tr>" for run in report.runs)
    names = ("rows", "context", "step", "min", "max", "layer", "floor of a step", "times floor", "launch floor")
    head = number_heads(names)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _total_cells(run: RunReport) -> str:
    times = (run.step, min(run.step_seconds), max(run.step_seconds), run.layer, run.floor)
    figures = (*map(format_seconds, times), f"{run.step / run.floor:.2f}", format_seconds(run.launch_floor))
    return f'{number_cells(str(run.rows))}<td class="right">{escape(run.context)}</td>{number_cells(*figures)}'


def _run(report: BenchReport, run: RunReport) -> str:
    groups = group_dispatches(run)
    remarks = [
        f"dispatches timed by {run.dispatch_method}"
        if run.dispatch_method
        else f"single dispatches could not be timed: {run.dispatch_reason}",
        *run.notes,
    ]
    if any(group.expected_bytes for group in groups):
        remarks.append(f"~ counts {run.expected_experts:.1f} different experts per layer, as even routing would use")
    text = "<br>".join(map(escape, remarks))
    return (
        f"<section><header><h2>{run.rows} rows, context {escape(run.context)}</h2>"
        f'<span class="sum">step <b>{format_seconds(run.step)}</b> &nbsp; floor <b>{format_seconds(run.floor)}</b>'
        f"</span></header>{_bars(report, groups)}"
        '<p class="audit">bar: all of a kind in a step; thin bar: their floor; tick: launches that only read as many '
        f"bytes; per cent: of the memory bandwidth. {text}</p></section>"
    )


def _bars(report: BenchReport, groups: Sequence[DispatchGroup]) -> str:
    longest = max((value for group in groups for value in _marks(group).values() if value), default=1.0)
    return f'<div class="scroll"><table class="bars">{"".join(_bar(report, g, longest) for g in groups)}</table></div>'


def _marks(group: DispatchGroup) -> dict[str, float | None]:
    """Seconds of all of the group, and what they are drawn as."""
    marks = {group.kind: group.seconds, "floor": group.floor_seconds, "tick": group.launch_floor_seconds}
    return {style: None if seconds is None else group.count * seconds for style, seconds in marks.items()}


def _bar(report: BenchReport, group: DispatchGroup, longest: float) -> str:
    name = f"{group.name} ({group.weight})" if group.weight else group.name
    share = f"{group.bytes / group.seconds / report.bandwidth:.0%}" if group.seconds else "–"
    time = f"{group.count} × {format_seconds(group.seconds)}"
    moved = f"{'~' if group.expected_bytes else ''}{format_bytes(round(group.bytes))}"
    return f"<tr>{name_cell(name)}{number_cells(time, moved, share)}{bar_cell(_marks(group), longest)}</tr>"
