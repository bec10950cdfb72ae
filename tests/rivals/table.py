"""The report as tables for a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from predecode.pipelines.quantities import format_bytes, format_seconds
from tests.rivals.report import KernelResult, LayerResult, RivalsReport, time_or_reason


def renderables(report: RivalsReport) -> Iterator[RenderableType]:
    """Heading, whole layers, single ops, and what was left out."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    lines = [f"{report.artifact}, context {report.context}, on {report.device}", versions, report.method]
    if report.bandwidth:
        lines.insert(1, f"memory read at {report.bandwidth / 1e9:.1f} GB/s in this run; floors are bytes at that speed")
    yield Group(*map(Text, lines), Text())
    if report.layers:
        yield _layers(report)
    if report.kernels:
        yield _kernels(report)
    for part, reason in report.skipped.items():
        yield Text(f"{part}: {reason}")


def _table(title: str, left: int, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < left else "right")
    return table


def _layers(report: RivalsReport) -> Table:
    table = _table("time per layer", 1, "rival", "rows", "layer", "min", "max", "times floor", "deviation")
    for result in (result for rows in report.row_counts for result in report.layers_of(rows)):
        floor = report.layer_floor(result.rows)
        table.add_row(
            result.name,
            str(result.rows),
            time_or_reason(result),
            *(format_seconds(end(result.seconds)) if result.seconds else "" for end in (min, max)),
            f"{result.median / floor:.2f}" if result.median and floor else "–",
            _deviation(result),
        )
    return table


def _kernels(report: RivalsReport) -> Table:
    headings = ("op", "rival", "rows", "bytes", "floor", "ours", "rival's", "deviation", "remark")
    table = _table("single ops, weights and caches cold", 2, *headings)
    for result in report.kernels:
        table.add_row(
            result.op,
            result.name,
            str(result.rows),
            format_bytes(result.bytes),
            format_seconds(result.bytes / report.bandwidth if report.bandwidth else None),
            format_seconds(result.ours),
            time_or_reason(result),
            _deviation(result),
            "; ".join(filter(None, (result.remark, result.ours_with and f"ours with {result.ours_with}"))),
        )
    return table


def _deviation(result: LayerResult | KernelResult) -> str:
    return "–" if result.deviation is None else f"{result.deviation:.1e}"
