"""The command `predecode`: export, run, compare, inspect, bench. Every error is one line; exit codes 0, 1 and 2."""

import errno
import os
import signal
import statistics
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Tolerance

EXIT_MISMATCH = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
_FILE_WIDTH = 140

app = typer.Typer(
    name="predecode",
    help="Ahead-of-time compiled decode layers of DSA models (GLM-5, DeepSeek-V3.2).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="An artifact that `predecode export` wrote.")]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help='IREE device ("local-task", "hip://0", "cuda") or "emulated"; default: the target\'s.',
    ),
]
Rows = Annotated[str | None, typer.Option(help="Row counts such as 4,16; default: all of the artifact.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset, or a checkpoint folder.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the artifact goes.")],
    target: Annotated[str, typer.Option(help="cpu, gfx942, gfx950 or sm_90.")] = "cpu",
    layers: Annotated[str | None, typer.Option(help="Layer numbers such as 0,3; default: the whole step.")] = None,
    rows: Annotated[str, typer.Option(help="Row counts to compile for.")] = "1,4,16,64",
    max_context: Annotated[
        int | None, typer.Option(help="Tokens of the longest sequence; default: 8192, or all the model has.")
    ] = None,
    pages: Annotated[int, typer.Option(help="Pages of 64 tokens in each cache.")] = 256,
    tensor_parallel: Annotated[int, typer.Option(help="Ranks that share the model.")] = 1,
    rank: Annotated[int, typer.Option(help="Which of them this artifact is for.")] = 0,
    reduce: Annotated[
        str | None,
        typer.Option(
            help="external (end where the caller adds up ranks' partial sums; default for several ranks), peers (ranks "
            "add them up among themselves) or none."
        ),
    ] = None,
    schedule: Annotated[
        str | None,
        typer.Option(
            help="serial, or overlap (independent ops side by side in one dispatch); default: overlap if ops are fused."
        ),
    ] = None,
    fuse: Annotated[
        str,
        typer.Option(
            help="none, chain (up to four levels in one dispatch, of which later ones load weights while they wait) or "
            "layer (all of a layer's ops in one dispatch)."
        ),
    ] = "none",
    seed: Annotated[int, typer.Option(help="Seed of a preset's random weights.")] = 0,
    clang: Annotated[Path | None, typer.Option(help="Another clang for the kernels, such as ROCm's.")] = None,
) -> None:
    """Compile a model (or some of its layers) into an artifact for one target."""
    # Deprecations inside torch and turbine are nothing a user can act on.
    warnings.simplefilter("ignore")
    export_artifact, options_type = _load_exporter()
    options = options_type(
        model=model,
        target=target,
        layers=_chosen("--layers", layers),
        rows=_integers("--rows", rows),
        max_context=max_context,
        pages=pages,
        tensor_parallel=tensor_parallel,
        rank=rank,
        reduce=reduce,
        schedule=schedule,
        fuse=fuse,
        seed=seed,
        clang=clang,
    )
    with _progress() as progress:
        export_artifact(options, output, progress)
    print(f"wrote {output}")


@app.command()
def run(
    folder: Folder,
    device: Device = None,
    steps: Annotated[int, typer.Option(help="Steps to take.")] = 8,
    json: Json = False,
) -> None:
    """Step an artifact on made-up input and print the time per step."""
    from predecode.pipelines.running import run as run_steps

    with _progress() as progress:
        report = run_steps(folder, device, steps, progress=progress)
    if json:
        print(report.to_json())
        return
    milliseconds = [1e3 * seconds for seconds in report.seconds]
    print(f"{report.model} for {report.target} on {report.device}: {report.steps} steps of {report.rows} rows")
    later = milliseconds[1:] or milliseconds
    print(f"first step {milliseconds[0]:.3f} ms, then median {statistics.median(later):.3f} ms")
    for row in range(report.rows if report.tokens else 0):
        print(f"row {row}: {' '.join(str(step[row]) for step in report.tokens)}")
    if report.note:
        print(f"note: {report.note}")


@app.command()
def compare(
    folder: Folder,
    device: Device = None,
    golden: Annotated[Path | None, typer.Option(metavar="FILE", help="Instead of the artifact's own golden.")] = None,
    json: Json = False,
) -> None:
    """Run an artifact's golden steps and compare every result: exit code 0 within tolerance, 1 outside."""
    from predecode.pipelines.golden_check import compare as compare_steps

    with _progress() as progress:
        report = compare_steps(folder, device, golden, progress=progress)
    if json:
        print(report.to_json())
    else:
        table = Table()
        for heading in ("output", "max abs", "max rel", "cosine", "tolerance", ""):
            justify = "right" if heading in ("max abs", "max rel", "cosine") else "left"
            table.add_column(heading, justify=justify, overflow="fold")
        for output in report.outputs:
            verdict = "[green]ok[/]" if output.passed else "[bold red]FAILED[/]"
            figures = (f"{output.max_abs:.3g}", f"{output.max_rel:.3g}", f"{output.cosine:.6f}")
            table.add_row(output.name, *figures, _tolerance_text(output.tolerance), verdict)
        _console().print(table)
        if report.passed:
            print(f"OK: {len(report.outputs)} outputs over {report.steps} steps on {report.device}")
    if not report.passed:
        print(f"predecode: {report.first_mismatch}", file=sys.stderr)
        print(
            f"predecode: inputs, both outputs and the command to rerun are in {report.bundle}",
            file=sys.stderr,
        )
        raise typer.Exit(EXIT_MISMATCH)


@app.command()
def inspect(
    folder: Folder,
    device: Annotated[
        str | None, typer.Option(metavar="URI", help='"emulated": also run it there and count what it does.')
    ] = None,
    rows: Rows = None,
    json: Json = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page with the timeline of dispatches.")
    ] = None,
) -> None:
    """Show every dispatch of an artifact: whose it is, what it moves, and what that costs at least."""
    from predecode.pipelines.inspection import inspect as inspect_artifact

    inspection = inspect_artifact(folder, device, _chosen("--rows", rows))
    if html is not None:
        html.write_text(inspection.to_html(), encoding="utf-8")
    if json:
        print(inspection.to_json())
    elif html is None:
        inspection.print_to(_console())
    else:
        print(f"wrote {html}")


@app.command()
def bench(
    folder: Folder,
    device: Device = None,
    rows: Rows = None,
    context: Annotated[
        str | None, typer.Option(help="Tokens that each row sees, such as 1000,8192,ragged; default: up to 8192.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Refuse an artifact that chains another number.")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps per repeat, instead of --seconds.")] = None,
    seconds: Annotated[float, typer.Option(help="About how long the steps of each batch are timed.")] = 2.0,
    json: Json = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots.")] = None,
) -> None:
    """Time an artifact's layers and dispatches where it runs, against the memory's speed in the same run."""
    from predecode.pipelines.bench import bench as bench_artifact
    from predecode.pipelines.bench.page import render_page
    from predecode.pipelines.bench.table import renderables

    with _progress() as progress:
        report = bench_artifact(
            folder,
            device,
            rows=_chosen("--rows", rows),
            contexts=context.split(",") if context is not None else (None,),
            layers=layers,
            steps=steps,
            seconds=seconds,
            progress=progress,
        )
    if html is not None:
        html.write_text(render_page(report), encoding="utf-8")
    if json:
        print(report.to_json())
        return
    console = _console()
    for part in renderables(report):
        console.print(part)
    if html is not None:
        print(f"wrote {html}")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit; a user's mistake is one line on the error stream and exit code 2."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = app(args=arguments, standalone_mode=False) or 0
        if code == EXIT_INTERRUPTED:
            # typer has turned the interrupt into this code.
            _complain("interrupted", code)
        sys.stdout.flush()
    except BaseException as error:
        code = _exit_code(error)
    sys.exit(code)


def _terminate(*_) -> None:
    # An exception, so that an export under way removes what it wrote.
    raise KeyboardInterrupt


def _exit_code(error: BaseException) -> int:
    """Print what went wrong in one line; what is neither a user's nor the system's fault is raised again."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return _complain("interrupted", EXIT_INTERRUPTED)
    if isinstance(error, PredecodeError):
        return _complain(str(error), EXIT_BAD_INPUT)
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BAD_INPUT
    if isinstance(error, OSError):
        return _complain(_system_error(error), EXIT_BAD_INPUT)
    if isinstance(error, MemoryError):
        return _complain("out of memory; export fewer rows or pages, or use a larger machine", EXIT_BAD_INPUT)
    usage = getattr(error, "format_message", None)
    if usage:
        return _complain(f"{usage()} (see `predecode --help`)", EXIT_BAD_INPUT)
    if isinstance(error, SystemExit | typer.Exit):
        return getattr(error, "exit_code", None) or getattr(error, "code", None) or 0
    raise error


def _complain(message: str, code: int) -> int:
    print("predecode: " + " ".join(message.split()), file=sys.stderr)
    return code


def _system_error(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        what = error.filename or "the output"
        return f"no space left on the disk while writing {what}; free some or choose another place"
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _console() -> Console:
    """For tables: as wide as the terminal, or wide enough for any of them in a file or a pipe."""
    return Console() if sys.stdout.isatty() else Console(width=_FILE_WIDTH)


def _load_exporter():
    try:
        from predecode.export.exporter import export_artifact
        from predecode.export.options import ExportOptions
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "predecode":
            raise
        raise PredecodeError(
            f"exporting needs the package {error.name!r}, which is not installed; pip install 'predecode[export]'"
        ) from None
    return export_artifact, ExportOptions


def _integers(option: str, text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise PredecodeError(f"{option} {text!r}: expected whole numbers separated by commas, such as 1,4") from None


def _chosen(option: str, text: str | None) -> tuple[int, ...] | None:
    return None if text is None else _integers(option, text)


def _tolerance_text(tolerance: Tolerance) -> str:
    parts = []
    if tolerance.relative:
        parts.append(f"rel {tolerance.relative:g}")
    if tolerance.absolute:
        parts.append(f"abs {tolerance.absolute:g}")
    if tolerance.steps:
        parts.append(f"{tolerance.steps} fp8 steps")
    parts = parts or ["equal"]
    if tolerance.fraction < 1:
        parts.append(f"on {tolerance.fraction:.2%}")
    if tolerance.cosine > -1:
        parts.append(f"cosine {tolerance.cosine:g}")
    return ", ".join(parts)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """A callback that draws one bar per kind of work, on the error stream and only on a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, int] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
