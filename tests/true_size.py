"""Golden steps of an artifact at true model sizes, which are too large to be made at export.

    python -m tests.true_size ARTIFACT GOLDEN --contexts 1000,8192,65536,ragged [--device cuda]

Runs the eager model on the artifact's own parameters: one step per compiled row count and context, into a golden
file for `predecode compare ARTIFACT --golden GOLDEN`. Products and sums are in float32, whatever the device. Needs
torch, and neither the compiler nor a GPU.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from predecode.custom_kernels.targets import TARGETS
from predecode.export.golden import make_golden_at
from predecode.export.model.segments import Segment, build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.models import find_model
from predecode.export.shard import Shard
from predecode.pipelines.artifact import Artifact
from predecode.pipelines.golden import write_golden
from tests.rivals.parameters import Archive


def lengths_of(context: str, rows: int, longest: int) -> list[int]:
    """What each row sees: ``context`` tokens, or seeded lengths even in their logarithm for "ragged"."""
    if context != "ragged":
        return [int(context)] * rows
    draws = np.random.default_rng(rows).random(rows)
    return [max(rows, round(longest**draw)) for draw in draws]


def load_segments(artifact: Artifact, device: torch.device) -> list[Segment]:
    """The artifact's segments with its parameters, on ``device``."""
    manifest = artifact.manifest
    config = find_model(manifest.model.name, manifest.model.seed).config
    shard = Shard(manifest.model.tensor_parallel, manifest.model.rank)
    geometry = Geometry(manifest.geometry.max_context, manifest.geometry.pages)
    element_format = TARGETS[manifest.target.name].element_format
    with torch.device("meta"):
        segments = build_segments(config, manifest.model.layers, shard, manifest.model.reduce, element_format, geometry)
    archive = Archive(artifact.path(manifest.parameters.file))
    for segment in segments:
        state = {name: archive.tensor(name, like).to(device) for name, like in segment.state_dict().items()}
        segment.load_state_dict(state, assign=True)
    return segments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifact", type=Path)
    parser.add_argument("golden", type=Path)
    parser.add_argument("--contexts", default="1000,8192,ragged")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    options = parser.parse_args()
    device = torch.device(options.device)
    artifact = Artifact.open(options.artifact, hashes=False)
    segments = load_segments(artifact, device)
    contexts = options.contexts.split(",")
    longest = max(int(context) for context in contexts if context != "ragged")
    batches = [lengths_of(context, count, longest) for count in artifact.manifest.row_counts for context in contexts]
    start = time.monotonic()

    def say(step: int, of: int) -> None:
        print(f"step {step + 1} of {of}: {len(batches[step])} rows, {time.monotonic() - start:.0f} s", flush=True)

    write_golden(options.golden, *make_golden_at(segments, batches, segments[0].geometry, 1, say, device))


if __name__ == "__main__":
    main()
