"""The report as a page: what a layer and single ops take, by ours and by each rival."""

from collections.abc import Iterable, Sequence
from html import escape

from predecode.pipelines.bench.report import RunReport, group_dispatches
from predecode.pipelines.page_style import bar_cell, document, facts_list, name_cell, number_cells, number_heads
from predecode.pipelines.quantities import format_seconds
from tests.rivals.report import KernelResult, LayerResult, RivalsReport, time_or_reason

OURS = "predecode"
_LONGEST = 8.0
"""Bars are cut off where something takes so many times as long as ours."""


def render_page(report: RivalsReport) -> str:
    """The whole HTML document."""
    facts = {
        "artifact": f"{report.artifact}, context {report.context}",
        "device": report.device,
        "date": report.bench.date if report.bench else None,
        "memory read in this run": f"{report.bandwidth / 1e9:.1f} GB/s" if report.bandwidth else None,
        "versions": ", ".join(f"{name} {version}" for name, version in report.versions.items()),
    }
    left_out = [f"{part}: {reason}" for part, reason in report.skipped.items()]
    body = (
        f"{facts_list({key: value for key, value in facts.items() if value})}"
        f'<p class="audit">{escape(report.method)}</p>{"".join(_section(report, rows) for rows in report.row_counts)}'
        f'<p class="audit">{"<br>".join(map(escape, left_out))}</p>'
    )
    return document(f"{report.artifact} and its rivals on {report.device}", body)


def _section(report: RivalsReport, rows: int) -> str:
    layers = report.layers_of(rows)
    kernels = [result for result in report.kernels if result.rows == rows]
    ours = next((result.median for result in layers if result.name == OURS), None)
    tables = _layers(layers, report.layer_floor(rows), ours) if layers else ""
    tables += _kernels(kernels, report.run_of(rows), report.bandwidth) if kernels else ""
    return f"<section><header><h2>{rows} rows</h2></header>{tables}</section>"


def _layers(results: Sequence[LayerResult], floor: float | None, ours: float | None) -> str:
    longest = _longest((result.median for result in results), ours)
    body = "".join(
        f"<tr>{name_cell(result.name)}{number_cells(time_or_reason(result), _times(result.median, ours))}"
        f"{bar_cell({_style(result.name): result.median, 'floor': floor}, longest)}</tr>"
        for result in results
    )
    caption = f"a layer; thin bar: the floor of its bytes; bars end at {_LONGEST:g} times ours"
    return _table(("a layer by", "time", "times ours"), body, caption)


def _kernels(results: Sequence[KernelResult], run: RunReport | None, bandwidth: float | None) -> str:
    """Each of our dispatches, then the rivals' kernels for ops that it holds, one behind the other."""
    of_dispatch: dict[float | None, list[KernelResult]] = {}
    for result in results:
        of_dispatch.setdefault(result.ours, []).append(result)
    names = {group.seconds: group.name for group in group_dispatches(run)} if run else {}
    longest = max(max(ours or 0.0, sum(r.median or 0.0 for r in group)) for ours, group in of_dispatch.items()) or 1.0
    body = ""
    for ours, group in of_dispatch.items():
        body += _kernel_row(names.get(ours, "no dispatch of ours"), format_seconds(ours), "", {"kernel": ours}, longest)
        together = 0.0
        for result in group:
            floor = result.bytes / bandwidth if bandwidth else None
            marks, start = {"compiled": result.median, "floor": floor}, together
            together += result.median or 0.0
            name = f"{result.name}: {result.op}"
            body += _kernel_row(name, time_or_reason(result), format_seconds(together), marks, longest, start)
    caption = (
        "our dispatches, which do more than the rivals' kernels below each: those do one op, and are drawn one behind "
        "the other; thin bar: the floor of an op's bytes"
    )
    return _table(("single ops", "time", "together"), body, caption)


def _kernel_row(
    name: str, time: str, together: str, marks: dict[str, float | None], longest: float, start: float = 0.0
) -> str:
    return f"<tr>{name_cell(name)}{number_cells(time, together)}{bar_cell(marks, longest, start)}</tr>"


def _table(headings: Sequence[str], body: str, caption: str) -> str:
    first, *others = headings
    head = f"<tr><th>{first}</th>{number_heads(others)}<th></th></tr>"
    table = f'<table class="bars"><thead>{head}</thead><tbody>{body}</tbody></table>'
    return f'<div class="scroll">{table}</div><p class="audit">{caption}</p>'


def _longest(times: Iterable[float | None], ours: float | None) -> float:
    longest = max((time for time in times if time is not None), default=1.0)
    return longest if ours is None else min(longest, _LONGEST * ours)


def _style(name: str) -> str:
    return "kernel" if name == OURS else "compiled"


def _times(median: float | None, ours: float | None) -> str:
    return f"{median / ours:.1f}" if median and ours else ""
