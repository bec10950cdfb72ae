"""Golden files: what a model's steps take and give, made at export by the eager model.

A safetensors file with these names:

    initial/<cache>                             the cache before the first step, int8 [pages, page bytes]
    steps/<n>/<segment>/inputs/<argument>       every argument that is no cache
    steps/<n>/<segment>/results/<result>        expected results; caches too, as they are after the segment

A step's inputs have exactly one of the compiled row counts. Each segment has its own inputs, so that a
segment's error is its own and not the one before it; the caches carry on from segment to segment and step to
step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import EntryPoint, Manifest
from predecode.pipelines.tensor_file import read_tensors, write_tensors


class GoldenError(PredecodeError):
    """A golden file that does not fit the artifact."""


@dataclass(frozen=True, slots=True)
class SegmentGolden:
    """Inputs and expected results of one segment in one step, by argument and result name."""

    segment: str
    inputs: Mapping[str, np.ndarray]
    results: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """One step: its row count and its segments in order."""

    rows: int
    segments: tuple[SegmentGolden, ...]


def write_golden(path: Path, initial: Mapping[str, np.ndarray], steps: Sequence[GoldenStep]) -> None:
    """Write the golden file; the same values give the same bytes."""
    tensors = {f"initial/{name}": array for name, array in initial.items()}
    for number, step in enumerate(steps):
        for segment in step.segments:
            prefix = f"steps/{number}/{segment.segment}"
            tensors |= {f"{prefix}/inputs/{name}": array for name, array in segment.inputs.items()}
            tensors |= {f"{prefix}/results/{name}": array for name, array in segment.results.items()}
    write_tensors(path, tensors)


def read_golden(path: Path, manifest: Manifest) -> tuple[dict[str, np.ndarray], list[GoldenStep]]:
    """Initial caches and steps of a golden file, checked against ``manifest``; raises `GoldenError`."""
    if not path.is_file():
        raise GoldenError(f"{path} does not exist; give a golden file that an export wrote")
    tensors = read_tensors(path)
    initial = {name.removeprefix("initial/"): a for name, a in tensors.items() if name.startswith("initial/")}
    count = 1 + max((int(name.split("/")[1]) for name in tensors if name.startswith("steps/")), default=-1)
    if not count:
        raise GoldenError(f"{path} holds no step (no tensor named steps/0/...); export the golden again")
    return initial, [_read_step(path, manifest, tensors, number) for number in range(count)]


def _read_step(path: Path, manifest: Manifest, tensors: Mapping[str, np.ndarray], number: int) -> GoldenStep:
    first = manifest.entry_points[0]
    prefix = f"steps/{number}/{first.segment}/inputs/"
    names = [name for name in tensors if name.startswith(prefix)]
    if not names:
        raise GoldenError(
            f"{path} has no {prefix}..., so it is not of this artifact, which starts with {first.segment}"
        )
    rows = tensors[names[0]].shape[0]
    if rows not in manifest.row_counts:
        raise GoldenError(
            f"{path}: step {number} has {rows} rows, the artifact has steps of {list(manifest.row_counts)} "
            "rows"
        )
    return GoldenStep(
        rows, tuple(_read_segment(path, tensors, number, entry) for entry in manifest.segments(rows))
    )


def _read_segment(
    path: Path, tensors: Mapping[str, np.ndarray], number: int, entry: EntryPoint
) -> SegmentGolden:
    prefix = f"steps/{number}/{entry.segment}"
    inputs = {}
    for spec in entry.arguments:
        if spec.role != "cache":
            inputs[spec.name] = _tensor(path, tensors, f"{prefix}/inputs/{spec.name}", spec)
    results = {
        spec.name: _tensor(path, tensors, f"{prefix}/results/{spec.name}", spec)
        for spec in entry.results
        if f"{prefix}/results/{spec.name}" in tensors
    }
    if not results:
        raise GoldenError(
            f"{path} has no {prefix}/results/..., so there is nothing to compare {entry.segment} with"
        )
    return SegmentGolden(entry.segment, inputs, results)


def _tensor(path: Path, tensors: Mapping[str, np.ndarray], name: str, spec) -> np.ndarray:
    if name not in tensors:
        raise GoldenError(
            f"{path} has no {name}, which the artifact needs; use the golden that was exported with it"
        )
    array = tensors[name]
    if array.shape != spec.shape or array.dtype != np.dtype(spec.dtype):
        raise GoldenError(
            f"{path}: {name} is {array.dtype}{list(array.shape)}, the artifact has "
            f"{spec.dtype}{list(spec.shape)}"
        )
    return array
