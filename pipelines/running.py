"""`predecode run`: step an artifact on made-up input, to see that it runs here and how long a step takes."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predecode.pipelines.artifact import Progress
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.made_up_steps import MadeUpSteps
from predecode.pipelines.manifest import Manifest
from predecode.pipelines.records import encode
from predecode.pipelines.session import DecodeSession


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

    A whole model decodes greedily from one made-up token per sequence; a part of a model is given seeded
    noise. A result that is not finite raises a `PredecodeError`.
    """
    if steps < 1:
        raise PredecodeError(f"{steps} steps were asked for, expected 1 or more")
    session = DecodeSession.open(folder, device, strict=strict, progress=progress)
    session.stand_alone()
    manifest = session.manifest
    rows = manifest.row_counts[0]
    made_up = MadeUpSteps(manifest, rows)
    seconds, chosen = [], []
    for step in range(steps):
        arguments = made_up.next_arguments()
        start = time.perf_counter()
        results = session.step(reduce=keep_partial, **arguments)
        seconds.append(time.perf_counter() - start)
        _require_finite(results, step)
        if "logits" in results:
            made_up.tokens = results["logits"].argmax(axis=1)
            chosen.append(tuple(int(token) for token in made_up.tokens))
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


def keep_partial(partial):
    """Stands for the sum over ranks where only one of them is here."""
    return partial


def _require_finite(results: Mapping[str, np.ndarray], step: int) -> None:
    for name, values in results.items():
        bad = np.argwhere(~np.isfinite(values.astype(np.float32)))
        if len(bad):
            raise PredecodeError(
                f"{name} of row {bad[0][0]} in step {step} is {values[tuple(bad[0])]}, expected finite "
                "numbers; compare the artifact with its golden"
            )


def _note(manifest: Manifest) -> str | None:
    ranks = manifest.model.tensor_parallel
    if ranks == 1:
        return None
    return f"one rank of {ranks} alone: partial sums stand for sums, so the numbers are not the model's"
