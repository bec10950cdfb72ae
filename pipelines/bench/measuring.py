"""One bench from an artifact's folder to its report."""

import datetime
import platform
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

import iree.runtime as rt

from predecode.pipelines import device as devices
from predecode.pipelines.artifact import Progress, read_manifest
from predecode.pipelines.bench.batch import Batch, cache_contents, make_batch
from predecode.pipelines.bench.dispatch_times import DispatchTimes, DispatchTimesUnavailable
from predecode.pipelines.bench.moved import bytes_moved, expected_experts
from predecode.pipelines.bench.report import BenchReport, DispatchReport, RunReport, weight_of
from predecode.pipelines.bench.stepping import REPEATS, Pace, Stepper, StepTimes
from predecode.pipelines.bench.streaming import Bandwidth, measure_bandwidth
from predecode.pipelines.bench.tracing import time_dispatches
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.inspection import describe_model
from predecode.pipelines.manifest import Manifest
from predecode.pipelines.quantities import format_bytes, format_seconds
from predecode.pipelines.session import DecodeSession

DEFAULT_SECONDS = 2.0
# Larger than the last-level caches of the GPUs we know, and of most processors.
_CACHE_BYTES = 256 * 2**20
# Below this share, what passes between dispatches is worth a remark.
_MOSTLY = 0.85


def bench(
    folder: Path | str,
    device: str | None = None,
    rows: Sequence[int] | None = None,
    contexts: Sequence[str | None] = (None,),
    *,
    layers: int | None = None,
    steps: int | None = None,
    seconds: float = DEFAULT_SECONDS,
    progress: Progress | None = None,
) -> BenchReport:
    """Time steps of the artifact in ``folder`` for each of ``rows`` (default: all) and ``contexts``.

    ``contexts`` are numbers of tokens as text, or "ragged". ``layers``: how many the artifact must chain.
    ``steps`` per repeat, or as many as take ``seconds`` over all repeats. Anything that the artifact or the
    machine lacks raises a `PredecodeError`.
    """
    manifest = read_manifest(Path(folder))
    _refuse_emulation(manifest, device)
    _check_layers(manifest, layers)
    if steps is not None and steps < 1:
        raise PredecodeError(f"--steps {steps}: expected 1 or more")
    if not 0 < seconds < float("inf"):
        raise PredecodeError(f"--seconds {seconds}: expected more than 0")
    batches = _batches(manifest, rows, contexts)
    session = DecodeSession.open(folder, device, progress=progress)
    session.loop_back()
    bandwidth = measure_bandwidth(session, progress)
    fill_caches(session)
    pace = Pace(steps, seconds)
    return BenchReport(
        model=manifest.model.name,
        part=describe_model(manifest),
        target=manifest.target.name,
        device=session.uri,
        device_name=_device_name(session),
        date=datetime.date.today().isoformat(),
        tools=manifest.tools,
        method=_method(session),
        bandwidth=bandwidth.median,
        bandwidth_samples=bandwidth.samples,
        bandwidth_bytes=bandwidth.buffer_bytes,
        launches=bandwidth.launches,
        runs=tuple(_run(session, batch, pace, bandwidth, progress) for batch in batches),
    )


def _refuse_emulation(manifest: Manifest, device: str | None) -> None:
    if devices.check_target(manifest.target, device) == devices.EMULATED:
        raise PredecodeError(
            "the time of an emulated device means nothing; `predecode inspect --device emulated` counts what "
            "dispatches do"
        )


def _check_layers(manifest: Manifest, layers: int | None) -> None:
    chained = _chained_layers(manifest)
    if len(set(chained)) < len(chained):
        raise PredecodeError(
            f"the artifact runs layers {list(chained)}, some of them twice with the same weights, which a cache would "
            "flatter; export distinct layers"
        )
    if layers is not None and layers != len(chained):
        raise PredecodeError(
            f"--layers {layers}: the artifact chains {len(chained)} layers; export it with as many --layers"
        )


def _chained_layers(manifest: Manifest) -> tuple[int, ...]:
    if manifest.model.layers is not None:
        return manifest.model.layers
    return tuple(range(manifest.model.config.get("num_hidden_layers", 0)))


def _batches(manifest: Manifest, rows: Sequence[int] | None, contexts: Sequence[str | None]) -> list[Batch]:
    counts = manifest.chosen_rows(rows)
    return [make_batch(manifest.geometry, count, context) for context in contexts for count in counts]


def fill_caches(session: DecodeSession) -> None:
    """Put what a decode would have left into the caches of ``session``."""
    contents = {}
    specs = {s.name: s for e in session.manifest.entry_points for s in e.arguments if s.role == "cache"}
    for spec in specs.values():
        key = (spec.shape, spec.layout)
        if key not in contents:
            contents[key] = cache_contents(spec, session.manifest.target.element_format)
        session.write_cache(spec.name, contents[key])


def _run(
    session: DecodeSession, batch: Batch, pace: Pace, bandwidth: Bandwidth, progress: Progress | None
) -> RunReport:
    manifest = session.manifest
    stepper = Stepper(session, batch)
    times = stepper.time(pace, progress)
    traced, reason = None, None
    try:
        traced = time_dispatches(stepper)
    except DispatchTimesUnavailable as error:
        reason = str(error)
    return RunReport(
        rows=batch.rows,
        context=batch.context,
        lengths=batch.lengths,
        layers=len(manifest.model.layers) if manifest.model.layers is not None else None,
        steps_per_repeat=times.steps_per_repeat,
        step_seconds=times.seconds,
        submission_seconds=times.submission,
        expected_experts=expected_experts(manifest, batch.rows),
        dispatches=tuple(_dispatch_reports(manifest, batch, traced, bandwidth)),
        dispatch_method=traced.method if traced else None,
        dispatch_reason=reason,
        notes=tuple(_notes(manifest, batch, times, traced)),
    )


def _dispatch_reports(manifest: Manifest, batch: Batch, traced: DispatchTimes | None, bandwidth: Bandwidth):
    listed = [d for entry in manifest.segments(batch.rows) for d in entry.audit.dispatches]
    for number, dispatch in enumerate(listed):
        moved = bytes_moved(manifest, batch, dispatch)
        yield DispatchReport(
            name=dispatch.name,
            weight=weight_of(dispatch),
            kind=dispatch.kind,
            workgroups=dispatch.workgroups,
            bytes=moved.total,
            expected_bytes=moved.expected,
            floor_seconds=bandwidth.floor(moved.total),
            launch_floor_seconds=bandwidth.launch_floor(moved.total),
            seconds=traced.seconds[number] if traced else (),
        )


def _notes(manifest: Manifest, batch: Batch, times: StepTimes, traced: DispatchTimes | None):
    moved = sum(
        bytes_moved(manifest, batch, d).total for e in manifest.segments(batch.rows) for d in e.audit.dispatches
    )
    if moved < _CACHE_BYTES:
        yield f"a step moves {format_bytes(moved)}, which a cache may hold: memory's speed need not bound it"
    if len(_chained_layers(manifest)) == 1:
        yield "one layer alone: its weights may stay in a cache from step to step; export more --layers"
    if manifest.model.layers is None:
        yield "a whole step: embedding and output head are in its time, so no time per layer is given"
    if manifest.model.reduce == "peers":
        yield "a rank that sends its partial sums to itself: all-reduces are in the time, but no link between devices"
    elif manifest.model.tensor_parallel > 1:
        yield f"one rank of {manifest.model.tensor_parallel}: no all-reduce is in the time"
    if traced is not None:
        dispatches, step = sum(map(statistics.median, traced.seconds)), statistics.median(times.seconds)
        if dispatches < _MOSTLY * step:
            yield (
                f"the dispatches of a step take {format_seconds(dispatches)} of its {format_seconds(step)}: the rest "
                "passes between them"
            )


def _method(session: DecodeSession) -> str:
    where = "the CPU's worker threads" if session.uri.startswith("local") else "the device"
    return (
        f"steps submitted back to back with inputs, caches and weights resident on {where}, timed from the first "
        f"submission to the end of the last step, divided by their number; median of {REPEATS} repeats"
    )


def _device_name(session: DecodeSession) -> str:
    driver, _, path = session.uri.partition("://")
    if driver.startswith("local"):
        return _processor_name()
    found = rt.get_driver(driver).query_available_devices()
    chosen = next((d for d in found if d["path"] == path), found[int(path) if path.isdigit() else 0])
    return chosen["name"]


def _processor_name() -> str:
    information = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.*)$", information.read_text(), re.M) if information.exists() else None
    return match[1] if match else platform.processor() or platform.machine()
