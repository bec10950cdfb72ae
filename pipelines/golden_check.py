"""`predecode compare`: run an artifact's golden steps and hold every result against its tolerance."""

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predecode.pipelines.artifact import Progress
from predecode.pipelines.comparison import Comparison, compare_cache, compare_result
from predecode.pipelines.golden import GoldenError, GoldenStep, SegmentGolden, read_golden, row_tensors
from predecode.pipelines.golden_caches import InitialCaches
from predecode.pipelines.manifest import EntryPoint, Manifest, Tolerance
from predecode.pipelines.records import encode
from predecode.pipelines.session import DecodeSession
from predecode.pipelines.step_results import to_host
from predecode.pipelines.tensor_file import write_tensors

BUNDLE_SUFFIX = ".mismatch"
BUNDLE_FILE = "mismatch.json"


@dataclass(frozen=True, slots=True)
class OutputReport:
    """One output over all steps: the worst of each figure. ``name`` is "<segment>.<result>"."""

    name: str
    max_abs: float
    max_rel: float
    cosine: float
    tolerance: Tolerance
    passed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a comparison.

    ``first_mismatch`` is one line about the first element out of tolerance, ``bundle`` the folder with the
    tensors around it; both None when all passed.
    """

    passed: bool
    device: str
    steps: int
    outputs: tuple[OutputReport, ...]
    first_mismatch: str | None
    bundle: str | None

    def to_json(self) -> str:
        """Deterministic text."""
        return json.dumps(encode(self), indent=1, sort_keys=True)


def compare(
    folder: Path | str,
    device: str | None = None,
    golden: Path | str | None = None,
    *,
    bundle: Path | str | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Run the golden steps of the artifact in ``folder`` on ``device`` and compare every result.

    ``golden`` replaces the artifact's own golden file. The first mismatch is written to the folder ``bundle``
    (default: beside the artifact, with the suffix ".mismatch"). Bad input raises a `PredecodeError`.
    """
    session = DecodeSession.open(folder, device, strict=strict, progress=progress)
    session.stand_alone()
    manifest = session.manifest
    if manifest.golden is None:
        raise GoldenError(f"{folder} was exported without tolerances; export it again")
    if golden is None and manifest.golden.file is None:
        raise GoldenError(
            f"{folder} was exported without a golden, the model being too large to run at export; compare a "
            "smaller export of the model, or make a golden elsewhere and pass it with --golden"
        )
    path = Path(golden) if golden else session.artifact.path(manifest.golden.file)
    initial, steps = read_golden(path, manifest)
    held = _write_caches(session, initial)
    bundle = Path(bundle) if bundle else Path(str(Path(folder)).rstrip("/") + BUNDLE_SUFFIX)
    results: list[tuple[str, Comparison]] = []
    first_mismatch = None
    for number, step in enumerate(steps):
        for entry, expected in zip(manifest.segments(step.rows), step.segments, strict=True):
            before = {spec.name: held[spec.name] for spec in entry.arguments if spec.role == "cache"}
            # Taken out one by one: no device array may outlive the session.
            computed = session.run_segment(entry, expected.inputs)
            given = {name: to_host(computed.pop(name)) for name in list(computed)}
            held |= {name: given[name] for name in before}
            compared = _compare_segment(manifest, entry, before, given, expected)
            results += [(f"{entry.segment}.{item.name}", item) for item in compared]
            failed = [item for item in compared if not item.passed]
            if failed and first_mismatch is None:
                first_mismatch = _describe(entry, number, failed[0])
                command = _command(folder, session.uri, golden)
                _write_bundle(bundle, number, step, entry, expected, before, given, failed, command)
        if progress:
            progress("comparing steps", number + 1, len(steps))
    outputs = _summarise(results)
    passed = first_mismatch is None
    return Report(passed, session.uri, len(steps), outputs, first_mismatch, None if passed else str(bundle))


def _write_caches(session: DecodeSession, initial: InitialCaches) -> dict[str, np.ndarray]:
    """Put the initial caches on the device; what they hold, by name."""
    written = {}
    for entry in session.manifest.entry_points:
        for spec in entry.arguments:
            if spec.role == "cache" and spec.name not in written:
                pages = initial.pages(spec.name, spec.layout, session.manifest.target.element_format)
                session.write_cache(spec.name, pages)
                written[spec.name] = pages
    return written


def _compare_segment(
    manifest: Manifest,
    entry: EntryPoint,
    before: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    expected: SegmentGolden,
) -> list[Comparison]:
    specs = {spec.name: spec for spec in entry.results}
    compared = [
        compare_result(name, specs[name], given[name], want, _tolerance(manifest, name))
        for name, want in expected.results.items()
    ]
    for name, rows in expected.written.items():
        real = expected.inputs["slot_mapping"] >= 0
        compared.append(
            compare_cache(
                name,
                specs[name],
                before[name],
                given[name],
                expected.inputs["slot_mapping"][real],
                rows.take(real),
                _tolerance(manifest, name),
                manifest.target.element_format,
            )
        )
    return compared


def _tolerance(manifest: Manifest, name: str) -> Tolerance:
    tolerance = manifest.golden.tolerance.get(name)
    if tolerance is None:
        raise GoldenError(f"the manifest gives no tolerance for result {name!r}; export again")
    return tolerance


def _summarise(results: list[tuple[str, Comparison]]) -> tuple[OutputReport, ...]:
    grouped: dict[str, list[Comparison]] = {}
    for name, item in results:
        grouped.setdefault(name, []).append(item)
    return tuple(
        OutputReport(
            name=name,
            max_abs=max(item.max_abs for item in items),
            max_rel=max(item.max_rel for item in items),
            cosine=min(item.cosine for item in items),
            tolerance=items[0].tolerance,
            passed=all(item.passed for item in items),
        )
        for name, items in grouped.items()
    )


def _describe(entry: EntryPoint, number: int, item: Comparison) -> str:
    bad = item.first_bad
    where = ", ".join(f"{axis} {index}" for axis, index in bad.coordinates.items())
    return (
        f"{entry.segment}.{item.name} in step {number}: {bad.reason}; first of {bad.count} at {where} (byte "
        f"{bad.byte_offset}): got {bad.given}, expected {bad.expected}"
    )


def _command(folder: Path | str, uri: str, golden: Path | str | None) -> str:
    words = ["predecode", "compare", str(folder), "--device", uri]
    return shlex.join([*words, "--golden", str(golden)] if golden else words)


def _write_bundle(
    bundle: Path,
    number: int,
    step: GoldenStep,
    entry: EntryPoint,
    expected: SegmentGolden,
    before: Mapping[str, np.ndarray],
    given: Mapping[str, np.ndarray],
    failed: list[Comparison],
    command: str,
) -> None:
    """Everything needed to look into a mismatch without running again."""
    if (bundle / BUNDLE_FILE).is_file():
        shutil.rmtree(bundle)
    bundle.mkdir(parents=True, exist_ok=True)
    write_tensors(bundle / "inputs.safetensors", {**expected.inputs, **before})
    write_tensors(bundle / "given.safetensors", given)
    written = row_tensors("written", expected.written)
    write_tensors(bundle / "expected.safetensors", {**expected.results, **written})
    summary = {
        "command": command,
        "step": number,
        "rows": step.rows,
        "entry_point": entry.name,
        "mismatches": encode(failed),
    }
    (bundle / BUNDLE_FILE).write_text(json.dumps(summary, indent=1, sort_keys=True) + "\n", encoding="utf-8")
