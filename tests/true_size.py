"""Golden steps of an artifact at true model sizes, which are too large to be made at export.

    python -m tests.true_size ARTIFACT GOLDEN --contexts 1000,8192,65536,ragged

Runs the eager model on the artifact's own parameters: one step per compiled row count and context, into a golden
file for `predecode compare ARTIFACT --golden GOLDEN`. Needs torch, and neither the compiler nor a GPU.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from predecode.custom_kernels.targets import TARGETS
from predecode.export.golden import make_golden_at
from predecode.export.model.segments import build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.models import find_model
from predecode.export.shard import Shard
from predecode.export.weights import load_into
from predecode.pipelines.artifact import Artifact
from predecode.pipelines.golden import write_golden


def lengths_of(context: str, rows: int, longest: int) -> list[int]:
    """What each row sees: ``context`` tokens, or seeded lengths even in their logarithm for "ragged"."""
    if context != "ragged":
        return [int(context)] * rows
    draws = np.random.default_rng(rows).random(rows)
    return [max(rows, round(longest**draw)) for draw in draws]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("golden", type=Path)
    parser.add_argument("--contexts", default="1000,8192,ragged")
    options = parser.parse_args()
    manifest = Artifact.open(options.artifact, hashes=False).manifest
    model = find_model(manifest.model.name, manifest.model.seed)
    shard = Shard(manifest.model.tensor_parallel, manifest.model.rank)
    geometry = Geometry(manifest.geometry.max_context, manifest.geometry.pages)
    element_format = TARGETS[manifest.target.name].element_format
    segments = build_segments(
        model.config, manifest.model.layers, shard, manifest.model.reduce, element_format, geometry
    )
    for segment in segments:
        load_into(segment.state_dict(), model.weights, model.config, shard, element_format)
    contexts = options.contexts.split(",")
    longest = max(int(context) for context in contexts if context != "ragged")
    rows = sorted({entry.rows for entry in manifest.entry_points})
    batches = [lengths_of(context, count, longest) for count in rows for context in contexts]
    start = time.monotonic()

    def say(step: int, of: int) -> None:
        print(f"step {step + 1} of {of}: {len(batches[step])} rows, {time.monotonic() - start:.0f} s", flush=True)

    torch.manual_seed(0)
    write_golden(options.golden, *make_golden_at(segments, batches, geometry, 1, say))


if __name__ == "__main__":
    main()
