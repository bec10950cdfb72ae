"""A bench of two tiny layers on the CPU: what its report, tables and page hold."""

import io
import json
import statistics
from dataclasses import replace

import pytest
from rich.console import Console

from predecode.pipelines import Artifact
from predecode.pipelines.bench import BenchReport, bench, host_trace
from predecode.pipelines.bench.launches import LaunchTime
from predecode.pipelines.bench.page import render_page
from predecode.pipelines.bench.report import group_dispatches
from predecode.pipelines.bench.table import renderables


def printed(report: BenchReport) -> str:
    console = Console(file=io.StringIO(), width=180)
    for part in renderables(report):
        console.print(part)
    return console.file.getvalue()


def test_every_dispatch_of_the_manifest_is_timed_in_order(report, two_layers):
    (entry,) = Artifact.open(two_layers).manifest.segments(4)
    for run in report.runs:
        listed = [(d.name, d.workgroups) for d in entry.audit.dispatches]
        assert [(d.name, d.workgroups) for d in run.dispatches] == listed
        assert run.dispatch_method == host_trace.METHOD
        assert {len(d.seconds) for d in run.dispatches} == {host_trace.STEPS}
        assert all(0 < seconds < 1 for d in run.dispatches for seconds in d.seconds)


def test_steps_layers_and_floors_follow_from_the_samples(report):
    for run in report.runs:
        assert len(run.step_seconds) == 9 and run.steps_per_repeat == 2
        assert run.step == statistics.median(run.step_seconds) == pytest.approx(2 * run.layer)
        assert len(run.submission_seconds) == 9 and min(run.submission_seconds) > 0
        assert run.floor == pytest.approx(sum(d.bytes for d in run.dispatches) / report.bandwidth)
        # One core works at a time: the dispatches fit in the step, as far as the machine is quiet.
        assert sum(d.median_seconds for d in run.dispatches) < 20 * run.step
    assert 1e8 < report.bandwidth == statistics.median(report.bandwidth_samples) < 1e13
    assert report.bandwidth_bytes >= 2**30


def test_groups_are_sorted_by_what_they_lose(report):
    run = report.runs[0]
    groups = group_dispatches(run)
    lost = [group.lost_seconds for group in groups]
    assert lost == sorted(lost, reverse=True)
    assert sum(group.count for group in groups) == len(run.dispatches)
    assert sum(lost) == pytest.approx(sum(d.median_seconds - d.floor_seconds for d in run.dispatches))
    # Only layer 3 has an indexer; both have experts and an output projection.
    counts = {(group.name, group.weight): group.count for group in groups}
    assert counts["gemm_fp8_blockscale", "attention.o_proj"] == 2
    assert counts["gemm_fp8_blockscale", "indexer.wq_b"] == 1
    assert counts["moe_gate_up", "mlp.experts.gate_up"] == 2


def test_a_shorter_context_moves_fewer_bytes(report):
    full, ragged = ({d.name: d.bytes for d in run.dispatches} for run in report.runs)
    assert ragged["paged_mqa_logits"] < full["paged_mqa_logits"]
    assert ragged["sparse_mla"] < full["sparse_mla"]
    assert ragged["moe_down"] == full["moe_down"]


def test_json_keeps_everything(report):
    document = json.loads(report.to_json())
    assert BenchReport.from_json(report.to_json()) == report
    totals = document["runs"][0]["totals"]
    assert totals["times_floor"] == pytest.approx(totals["step_seconds"] / totals["floor_seconds"])
    assert totals["bytes"] == sum(d["bytes"] for d in document["runs"][0]["dispatches"])


def test_tables_and_page_name_every_dispatch(report):
    text, page = printed(report), render_page(report)
    for run in report.runs:
        for group in group_dispatches(run):
            assert group.name in text and group.name in page
    for what in (report.device_name, report.date, f"{report.bandwidth / 1e9:.1f} GB/s", "ragged"):
        assert what in text and what in page
    assert "which a cache may hold" in text and "<svg" in page and "http" not in page.split("</style>")[1]


def test_floors_of_launches_are_summed_and_shown(report):
    assert report.launches == () and all(run.launch_floor is None for run in report.runs)
    of_dispatches = [
        replace(run, dispatches=tuple(replace(d, launch_floor_seconds=2 * d.floor_seconds) for d in run.dispatches))
        for run in report.runs
    ]
    launches = (LaunchTime(65536, (1.25e-6,)), LaunchTime(2**20, (3.5e-6,)))
    timed = replace(report, runs=tuple(of_dispatches), launches=launches)
    assert BenchReport.from_json(timed.to_json()) == timed
    assert [run.launch_floor for run in timed.runs] == pytest.approx([2 * run.floor for run in report.runs])
    for group in group_dispatches(timed.runs[0]):
        assert group.launch_floor_seconds == pytest.approx(2 * group.floor_seconds)
    times, tick = "65.5 kB in 1.25 µs, 1.05 MB in 3.50 µs", '<i class="tick" style="left:'
    assert times in printed(timed) and times in render_page(timed) and times not in printed(report)
    assert render_page(timed).count(tick) == sum(len(group_dispatches(run)) for run in timed.runs)
    assert tick not in render_page(report)
    contexts = {run.context for run in report.runs}
    assert render_page(timed).count('<polyline class="line c0 dotted"') == 1
    assert render_page(timed).count('dotted" style=') == len(contexts)
    assert 'dotted" style=' not in render_page(report)


def test_a_report_from_before_launches_were_timed_is_read(report):
    document = json.loads(report.to_json())
    del document["launches"]
    for dispatch in (dispatch for run in document["runs"] for dispatch in run["dispatches"]):
        del dispatch["launch_floor_seconds"]
    assert BenchReport.from_json(json.dumps(document)) == report


def test_without_a_tracer_the_steps_are_timed_and_the_reason_is_told(two_layers, monkeypatch):
    monkeypatch.setattr(host_trace.rt, "benchmark_exe", lambda: "/nowhere/iree-benchmark-module")
    (run,) = bench(two_layers, rows=[1], steps=1).runs
    assert run.step > 0 and run.dispatch_method is None
    assert "iree-benchmark-module could not be run" in run.dispatch_reason
    assert all(d.seconds == () and d.floor_seconds > 0 for d in run.dispatches)
    assert all(group.seconds is None for group in group_dispatches(run))


def test_a_report_without_dispatch_times_is_shown_without_them(report):
    document = json.loads(report.to_json())
    for run in document["runs"]:
        run |= {"dispatch_method": None, "dispatch_reason": "no tracer here"}
        for dispatch in run["dispatches"]:
            dispatch["seconds"] = []
    bare = BenchReport.from_json(json.dumps(document))
    assert "single dispatches could not be timed: no tracer here" in printed(bare)
    assert "no tracer here" in render_page(bare)
