"""The command of this package; see its docstring."""

import argparse
import importlib.metadata
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

import tests.rivals
from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.bench import bench
from predecode.pipelines.bench.moved import expected_experts
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.records import RecordError
from tests.rivals.inputs import CachePools
from tests.rivals.isolated import Sources, run_isolated
from tests.rivals.kernels import FAMILIES
from tests.rivals.layers import EAGER, TorchLayers, compiled_variants, free_memory, run_until
from tests.rivals.libraries import first_line, versions_in
from tests.rivals.page import OURS, render_page
from tests.rivals.parameters import ArtifactLayers
from tests.rivals.picture import render_picture
from tests.rivals.report import LayerResult, RivalError, RivalsReport
from tests.rivals.table import renderables
from tests.rivals.timing import REPLAYS

PARTS = ("predecode", "eager", "kernels", "compile")
_METHOD = (
    f"layers: a chain of all layers of the artifact, divided by their number; ops: different weights and caches in "
    f"one CUDA graph, divided by their number; median of {REPLAYS} replays. Ours: see the bench; its dispatches by "
    "their records on the GPU, to which a rival's replay adds about a microsecond of launch"
)
_PACKAGES = ("torch", "triton", "iree-base-runtime", "sgl-deep-gemm", "sglang-kernel")


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Options of the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.rivals", description=tests.rivals.__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path, help="folder; or the --json file of an earlier run, to show it again")
    parser.add_argument("--rows", type=_numbers, default=(4, 16, 64), help="row counts, each compiled in the artifact")
    parser.add_argument("--context", default="8192", help="tokens that each row sees, or ragged")
    parser.add_argument("--libraries", type=Path, help="folder made by python -m tests.rivals.fetch")
    parser.add_argument("--without", type=_parts, default=(), help=f"parts to leave out: {','.join(PARTS)}")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--minutes", type=float, default=7.5, help="after these, nothing new is begun")
    parser.add_argument("--json", type=Path, help="write all samples to this file")
    parser.add_argument("--html", type=Path, help="write a page with bars to this file")
    parser.add_argument("--svg", type=Path, help="write a picture of the layers to this file")
    return parser.parse_args(arguments)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _parts(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    unknown = sorted(set(chosen) - set(PARTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is no part; expected some of {','.join(PARTS)}")
    return chosen


def run(options: argparse.Namespace) -> RivalsReport:
    """All parts in turn; what fails in one does not stop the others. Raises what makes all of them pointless."""
    deadline = time.monotonic() + 60 * options.minutes
    if options.device == "cuda" and not torch.cuda.is_available():
        raise RivalError("no NVIDIA GPU is found; --device cpu runs the parts that need none")
    device = torch.device(options.device)
    manifest = read_manifest(options.artifact)
    artifact = ArtifactLayers.of(options.artifact, manifest)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "the CPU"
    report = RivalsReport(manifest.model.name, options.context, name, {}, _METHOD)

    def save() -> None:
        report.versions = _versions(options.libraries)
        if options.json:
            options.json.write_text(report.to_json())

    if "predecode" not in options.without:
        _say("predecode")
        _run_predecode(options, report)
        free_memory()
        save()
    layers = None
    if not {"eager", "compile"} <= set(options.without):
        _say("weights and references")
        layers = TorchLayers(artifact, CachePools(manifest), options.rows, options.context, device)
    if "eager" not in options.without:
        wanted = [(variant, rows) for rows in options.rows for variant in EAGER]
        for result in run_until(deadline, layers, wanted):
            _take(report.layers, result)
        save()
    if "kernels" not in options.without:
        if device.type != "cuda":
            report.skipped["kernels"] = "need an NVIDIA GPU"
        else:
            sources = Sources(options.artifact, options.libraries, options.rows, options.context, options.device)
            for result in run_isolated(sources, FAMILIES, report, options.rows, deadline):
                _take(report.kernels, result)
                save()
        save()
    if "compile" not in options.without:
        chosen = artifact.config.num_experts_per_tok + artifact.config.n_shared_experts
        expected = {rows: expected_experts(manifest, rows) for rows in options.rows}
        for result in run_until(deadline, layers, compiled_variants(options.rows, chosen, expected)):
            _take(report.layers, result)
            save()
    save()
    return report


def _read(path: Path) -> RivalsReport:
    try:
        return RivalsReport.from_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecordError) as error:
        raise RivalError(f"{path} is no report of this command: {first_line(error)}") from None


def _run_predecode(options: argparse.Namespace, report: RivalsReport) -> None:
    uri = "cuda" if options.device == "cuda" else "local-task"
    try:
        report.bench = bench(options.artifact, uri, options.rows, (options.context,))
    except Exception as error:
        report.layers += [LayerResult(OURS, rows, reason=first_line(error)) for rows in options.rows]
        return
    for found in report.bench.runs:
        seconds = tuple(step / found.layers for step in found.step_seconds)
        _take(report.layers, LayerResult(OURS, found.rows, seconds))


def _take(results: list, result) -> None:
    results.append(result)
    what = result.reason or f"{result.median * 1e6:.2f} µs"
    _say(f"{getattr(result, 'op', 'layer')}, {result.name}, {result.rows} rows: {what}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _versions(libraries: Path | None) -> dict[str, str]:
    """What is installed, and what comes from the folder ``libraries``."""
    found = versions_in(libraries) if libraries else {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 2 with one line for what the caller can mend."""
    options = parse_arguments(arguments)
    try:
        report = _read(options.artifact) if options.artifact.is_file() else run(options)
        console = Console(width=200)
        for part in renderables(report):
            console.print(part)
        if options.html:
            options.html.write_text(render_page(report), encoding="utf-8")
        if options.svg:
            options.svg.write_text(render_picture(report), encoding="utf-8")
    except (PredecodeError, RivalError, OSError) as error:
        _say(f"error: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
