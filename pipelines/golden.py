"""Golden files: what a model's steps take and give, made at export by the eager model.

A safetensors file with these names:

    initial/tokens                              int32 [slots], which row of these a slot holds before the first step
    initial/<cache>/elements                    int8 [rows, elements of a token]
    initial/<cache>/scales                      float32 [rows], where the cache has them
    steps/<n>/<segment>/inputs/<argument>       every argument that is no cache
    steps/<n>/<segment>/results/<result>        expected results that are no cache
    steps/<n>/<segment>/written/<cache>/...     elements and scales of every row, as written to its slot

A step's inputs have exactly one of the compiled row counts. Each segment has its own inputs, so that a
segment's error is its own and not the one before it; the caches carry on from segment to segment and step to
step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden_caches import InitialCaches, TokenRows
from predecode.pipelines.manifest import RESIDENT_ROLES, EntryPoint, Manifest, TensorSpec
from predecode.pipelines.page_layout import CACHE_PAGES, PAGE_TOKENS
from predecode.pipelines.tensor_file import read_tensors, write_tensors


class GoldenError(PredecodeError):
    """A golden file that does not fit the artifact."""


@dataclass(frozen=True, slots=True)
class SegmentGolden:
    """Inputs and expected results of one segment in one step, by argument and result name.

    ``written`` has a row for each row of the step by name of the cache; one whose slot is -1 is not looked at.
    """

    segment: str
    inputs: Mapping[str, np.ndarray]
    results: Mapping[str, np.ndarray]
    written: Mapping[str, TokenRows]


@dataclass(frozen=True, slots=True)
class GoldenStep:
    """One step: its row count and its segments in order."""

    rows: int
    segments: tuple[SegmentGolden, ...]


def write_golden(path: Path, initial: InitialCaches, steps: Sequence[GoldenStep]) -> None:
    """Write the golden file; the same values give the same bytes."""
    tensors = {"initial/tokens": initial.tokens} | row_tensors("initial", initial.rows)
    for number, step in enumerate(steps):
        for segment in step.segments:
            prefix = f"steps/{number}/{segment.segment}"
            tensors |= {f"{prefix}/inputs/{name}": array for name, array in segment.inputs.items()}
            tensors |= {f"{prefix}/results/{name}": array for name, array in segment.results.items()}
            tensors |= row_tensors(f"{prefix}/written", segment.written)
    write_tensors(path, tensors)


def row_tensors(prefix: str, rows: Mapping[str, TokenRows]) -> dict[str, np.ndarray]:
    """The rows of each cache by their names in a golden file."""
    tensors = {f"{prefix}/{name}/elements": own.elements for name, own in rows.items()}
    return tensors | {f"{prefix}/{name}/scales": own.scales for name, own in rows.items() if own.scales is not None}


def read_golden(path: Path, manifest: Manifest) -> tuple[InitialCaches, list[GoldenStep]]:
    """Initial caches and steps of a golden file, checked against ``manifest``; raises `GoldenError`."""
    if not path.is_file():
        raise GoldenError(f"{path} does not exist; give a golden file that an export wrote")
    golden = _File(path, read_tensors(path))
    count = 1 + max((int(name.split("/")[1]) for name in golden.tensors if name.startswith("steps/")), default=-1)
    if not count:
        raise GoldenError(f"{path} holds no step (no tensor named steps/0/...); export the golden again")
    return golden.initial(manifest), [golden.step(manifest, number) for number in range(count)]


@dataclass(frozen=True, slots=True)
class _File:
    """The tensors of a golden file, handed out as an artifact needs them."""

    path: Path
    tensors: Mapping[str, np.ndarray]

    def initial(self, manifest: Manifest) -> InitialCaches:
        slots = manifest.geometry.pages * PAGE_TOKENS
        tokens = self._tensor("initial/tokens", (slots,), "int32")
        caches = {spec.name: spec for e in manifest.entry_points for spec in e.arguments if spec.role == "cache"}
        rows = {name: self._rows("initial", spec, None) for name, spec in caches.items()}
        if any(len(own) <= tokens.max(initial=-1) for own in rows.values()) or tokens.min(initial=-1) < -1:
            raise GoldenError(f"{self.path}: initial/tokens names rows that a cache has not; export the golden again")
        return InitialCaches(tokens, rows)

    def step(self, manifest: Manifest, number: int) -> GoldenStep:
        first = manifest.entry_points[0]
        prefix = f"steps/{number}/{first.segment}/inputs/"
        names = [name for name in self.tensors if name.startswith(prefix)]
        if not names:
            raise GoldenError(
                f"{self.path} has no {prefix}..., so it is not of this artifact, which starts with {first.segment}"
            )
        rows = self.tensors[names[0]].shape[0]
        if rows not in manifest.row_counts:
            raise GoldenError(
                f"{self.path}: step {number} has {rows} rows, the artifact has steps of "
                f"{list(manifest.row_counts)} rows"
            )
        return GoldenStep(rows, tuple(self._segment(number, entry) for entry in manifest.segments(rows)))

    def _segment(self, number: int, entry: EntryPoint) -> SegmentGolden:
        prefix = f"steps/{number}/{entry.segment}"
        inputs = {
            spec.name: self._tensor(f"{prefix}/inputs/{spec.name}", spec.shape, spec.dtype)
            for spec in entry.arguments
            if spec.role not in RESIDENT_ROLES
        }
        results, written = {}, {}
        for spec in entry.results:
            if spec.role == "cache":
                written[spec.name] = self._rows(f"{prefix}/written", spec, entry.rows)
            elif f"{prefix}/results/{spec.name}" in self.tensors:
                results[spec.name] = self._tensor(f"{prefix}/results/{spec.name}", spec.shape, spec.dtype)
        if not results:
            raise GoldenError(
                f"{self.path} has no {prefix}/results/..., so there is nothing to compare {entry.segment} with"
            )
        return SegmentGolden(entry.segment, inputs, results, written)

    def _rows(self, prefix: str, spec: TensorSpec, count: int | None) -> TokenRows:
        """Rows of the cache ``spec``; as many as there are where ``count`` is None."""
        page = CACHE_PAGES[spec.layout]
        name = f"{prefix}/{spec.name}"
        elements = self._tensor(f"{name}/elements", (count, page.dims(spec.shape[1])), "int8")
        scales = self._tensor(f"{name}/scales", (len(elements),), "float32") if page.has_scales else None
        return TokenRows(elements, scales)

    def _tensor(self, name: str, shape: tuple[int | None, ...], dtype: str) -> np.ndarray:
        if name not in self.tensors:
            raise GoldenError(
                f"{self.path} has no {name}, which the artifact needs; use the golden that was exported with it"
            )
        array = self.tensors[name]
        fits = len(array.shape) == len(shape) and all(
            wanted in (None, size) for size, wanted in zip(array.shape, shape, strict=True)
        )
        if not fits or array.dtype != np.dtype(dtype):
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise GoldenError(
                f"{self.path}: {name} is {array.dtype}{list(array.shape)}, the artifact has {dtype}[{wanted}]"
            )
        return array
