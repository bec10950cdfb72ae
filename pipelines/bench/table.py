"""A bench as tables for a terminal."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from predecode.pipelines.bench.launches import describe_launches
from predecode.pipelines.bench.report import BenchReport, DispatchGroup, RunReport, group_dispatches
from predecode.pipelines.inspection import KIND_STYLES
from predecode.pipelines.quantities import format_bytes, format_seconds


def renderables(report: BenchReport) -> Iterator[RenderableType]:
    """Heading, totals over all runs, and a table of dispatches per run."""
    times = describe_launches(report.launches)
    yield Group(
        Text(report.part, style="bold"),
        Text(f"{report.target} on {report.device} ({report.device_name}), {report.date}"),
        Text(
            f"memory read at {report.bandwidth / 1e9:.1f} GB/s in this run ({_range(report)}; "
            f"{format_bytes(report.bandwidth_bytes)} in turn); floors are bytes at that speed"
        ),
        *([Text(f"a launch that only reads: {times}; launch floors follow from these")] if times else ()),
        Text(report.method, style="dim"),
        Text(),
    )
    yield _totals(report)
    for run in report.runs:
        yield _dispatches(report, run)
        yield Text("\n".join((*_remarks(run), "")), style="dim")


def _range(report: BenchReport) -> str:
    return f"{min(report.bandwidth_samples) / 1e9:.1f} to {max(report.bandwidth_samples) / 1e9:.1f} over the repeats"


def _totals(report: BenchReport) -> Table:
    table = Table(title="time per step and layer", title_justify="left")
    for heading in (
        "rows",
        "context",
        "step",
        "min",
        "max",
        "layer",
        "floor of a step",
        "times floor",
        "launch floor",
        "host submits in",
    ):
        table.add_column(heading, justify="right")
    for run in report.runs:
        table.add_row(
            str(run.rows),
            run.context,
            format_seconds(run.step),
            format_seconds(min(run.step_seconds)),
            format_seconds(max(run.step_seconds)),
            format_seconds(run.layer),
            format_seconds(run.floor),
            f"{run.step / run.floor:.2f}" if run.floor else "–",
            format_seconds(run.launch_floor),
            format_seconds(sorted(run.submission_seconds)[len(run.submission_seconds) // 2]),
        )
    return table


def _dispatches(report: BenchReport, run: RunReport) -> Table:
    groups = group_dispatches(run)
    title = f"{run.rows} rows, context {run.context}: dispatches of a step, what loses most first"
    table = Table(title=title, title_justify="left", show_footer=True)
    timed = all(group.seconds is not None for group in groups)
    total = sum(group.count * group.seconds for group in groups) if timed else None
    lost = sum(group.lost_seconds for group in groups) if timed else None
    table.add_column("dispatch", footer="all")
    table.add_column("kind")
    table.add_column("count", justify="right", footer=str(sum(group.count for group in groups)))
    table.add_column("each", justify="right", footer=format_seconds(total))
    moved = sum(group.count * group.bytes for group in groups)
    table.add_column("bytes", justify="right", footer=format_bytes(round(moved)))
    table.add_column("floor", justify="right", footer=format_seconds(run.floor))
    table.add_column("launch floor", justify="right", footer=format_seconds(run.launch_floor))
    table.add_column("GB/s", justify="right")
    table.add_column("of bandwidth", justify="right")
    table.add_column("lost in a step", justify="right", footer=format_seconds(lost))
    for group in groups:
        table.add_row(*_row(report, group))
    return table


def _row(report: BenchReport, group: DispatchGroup) -> tuple[RenderableType, ...]:
    speed = group.bytes / group.seconds if group.seconds else None
    return (
        f"{group.name} ({group.weight})" if group.weight else group.name,
        Text(group.kind, style=KIND_STYLES[group.kind]),
        str(group.count),
        format_seconds(group.seconds),
        ("~" if group.expected_bytes else "") + format_bytes(round(group.bytes)),
        format_seconds(group.floor_seconds),
        format_seconds(group.launch_floor_seconds),
        f"{speed / 1e9:.1f}" if speed else "–",
        f"{speed / report.bandwidth:.0%}" if speed else "–",
        format_seconds(group.lost_seconds),
    )


def _remarks(run: RunReport) -> Iterator[str]:
    yield (
        f"dispatches timed by {run.dispatch_method}"
        if run.dispatch_method
        else f"single dispatches could not be timed: {run.dispatch_reason}"
    )
    if any(dispatch.expected_bytes for dispatch in run.dispatches):
        yield (
            f"~ counts the {run.expected_experts:.1f} different experts expected of even routing in each layer; "
            "uneven routing reads fewer"
        )
    yield from run.notes
