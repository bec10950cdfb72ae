"""`predecode run`: step an artifact on made-up input, to see that it runs here and how long a step takes."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predecode.pipelines.artifact import Progress
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Manifest, TensorSpec
from predecode.pipelines.page_layout import PAGE_TOKENS
from predecode.pipelines.pages import PADDING_SLOT, PagedSequence, PagePool, RowPlacement
from predecode.pipelines.records import encode
from predecode.pipelines.session import DecodeSession
from predecode.pipelines.step_inputs import caller_arguments

_SEED = 0


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did. ``seconds`` is wall time per step, the first includes one-time set-up.

    ``tokens`` are the greedily chosen tokens, one list per step (None for a part of a model, which has no
    logits); ``note`` says what the numbers do not mean, where they do not.
    """

    model: str
    target: str
    device: str
    rows: int
    steps: int
    seconds: tuple[float, ...]
    tokens: tuple[tuple[int, ...], ...] | None
    note: str | None

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(encode(self), indent=1, sort_keys=True)


def run(
    folder: Path | str,
    device: str | None = None,
    steps: int = 8,
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> RunReport:
    """Step the artifact in ``folder`` ``steps`` times with its smallest row count, one sequence per row.

    A whole model decodes greedily from one made-up token per sequence; a part of a model is given seeded noise.
    """
    if steps < 1:
        raise PredecodeError(f"{steps} steps were asked for, expected 1 or more")
    session = DecodeSession.open(folder, device, strict=strict, progress=progress)
    manifest = session.manifest
    rows = manifest.row_counts[0]
    wanted = caller_arguments(manifest.segments(rows))
    pool, sequences = PagePool(manifest.geometry), [PagedSequence() for _ in range(rows)]
    noise = np.random.default_rng(_SEED)
    current = np.arange(1, rows + 1, dtype=np.int64) % manifest.model.config.get("vocab_size", 2**31)
    seconds, chosen = [], []
    external = manifest.model.reduce == "external"
    for step in range(steps):
        placement = pool.append(sequences)
        arguments = {name: _made_up(spec, placement, sequences, current, noise) for name, spec in wanted.items()}
        start = time.perf_counter()
        results = session.step(reduce=(lambda partial: partial) if external else None, **arguments)
        seconds.append(time.perf_counter() - start)
        if "logits" in results:
            current = results["logits"].argmax(axis=1)
            chosen.append(tuple(int(token) for token in current))
        if progress:
            progress("stepping", step + 1, steps)
    return RunReport(
        model=manifest.model.name,
        target=manifest.target.name,
        device=session.uri,
        rows=rows,
        steps=steps,
        seconds=tuple(seconds),
        tokens=tuple(chosen) if chosen else None,
        note=_note(manifest),
    )


def _made_up(
    spec: TensorSpec,
    placement: RowPlacement,
    sequences: list[PagedSequence],
    tokens: np.ndarray,
    noise: np.random.Generator,
) -> np.ndarray:
    known = placement.as_arguments() | {"tokens": tokens}
    if spec.name in known:
        return known[spec.name]
    if spec.name == "selected_slots":
        return _latest_slots(spec, placement)
    if np.dtype(spec.dtype).kind == "i":
        raise PredecodeError(f"the artifact takes {spec.name!r}, which `predecode run` cannot make up; step it from Python")
    return noise.standard_normal((len(sequences), *spec.shape[1:]), np.float32).astype(np.dtype(spec.dtype))


def _latest_slots(spec: TensorSpec, placement: RowPlacement) -> np.ndarray:
    """int32 [rows, topk]: as an indexer would select where the context is at most topk, the latest otherwise."""
    slots = np.full((len(placement.lengths), *spec.shape[1:]), PADDING_SLOT, np.int32)
    for row, length in enumerate(placement.lengths):
        positions = np.arange(max(0, length - spec.shape[1]), length)
        slots[row, : len(positions)] = (
            placement.block_table[row, positions // PAGE_TOKENS] * PAGE_TOKENS + positions % PAGE_TOKENS
        )
    return slots


def _note(manifest: Manifest) -> str | None:
    model = manifest.model
    if model.tensor_parallel > 1:
        return f"one rank of {model.tensor_parallel} alone: partial sums stand for sums, so the numbers are not the model's"
    return None
