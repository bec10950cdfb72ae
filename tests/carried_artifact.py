"""Artifacts for a device that no test machine has: exported without parameters, which are made where the device is.

    python -m tests.carried_artifact export glm-5.1 --target sm_90 ... -o DIR    # where the compiler is
    python -m tests.carried_artifact fill DIR [DIR ...]                          # where the device is

The first takes what ``predecode export`` takes; the folder is small enough to be sent. The second computes a preset's
seeded weights on all processors, and completes the manifest; it needs torch, and neither the compiler nor a GPU.
"""

import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from predecode.custom_kernels.targets import TARGETS
from predecode.export.models import find_model
from predecode.export.shard import Shard
from predecode.export.weights.archive import ArchiveWriter, storage_offsets
from predecode.export.weights.parameters import Parameters
from predecode.export.weights.source import TensorSource
from predecode.export.weights.spans import layer_spans
from predecode.export.weights.transfer import model_parameters, parameter_lengths
from predecode.pipelines.artifact import MANIFEST_FILE, file_sha256, read_manifest
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import FileRecord


def export(arguments: Sequence[str]) -> None:
    """``predecode export`` with an empty file of parameters; ends the program."""
    from predecode.export import exporter
    from predecode.pipelines.command_line import main

    exporter.write_parameters = lambda path, *_: path.write_bytes(b"")
    main(["export", *arguments])


def fill(folder: Path) -> None:
    """Write the parameters of the artifact in ``folder``, as its export would have."""
    manifest = read_manifest(folder)
    model = find_model(manifest.model.name, manifest.model.seed)
    shard = Shard(manifest.model.tensor_parallel, manifest.model.rank)
    element_format = TARGETS[manifest.target.name].element_format
    context = manifest.geometry.max_context
    parts = model_parameters(model.weights, model.config, manifest.model.layers, shard, element_format, context)
    lengths = parameter_lengths(parts)
    path = folder / manifest.parameters.file
    with ArchiveWriter(path, lengths, layer_spans(storage_offsets(lengths), lengths)) as archive:
        _write(archive, parts, model.weights)
    record = FileRecord(file_sha256(path), path.stat().st_size)
    complete = dataclasses.replace(manifest, files=manifest.files | {manifest.parameters.file: record})
    (folder / MANIFEST_FILE).write_text(complete.to_json(), encoding="utf-8")


def _write(archive: ArchiveWriter, parts: Sequence[Parameters], weights: TensorSource) -> None:
    torch.set_num_threads(1)
    count = multiprocessing.cpu_count()
    largest_first = sorted(parts, key=lambda part: -sum(parameter_lengths([part]).values()))

    def write(first: int) -> None:
        for part in largest_first[first::count]:
            for piece in part.pieces(weights):
                archive.write(piece.name, piece.offset * piece.data.dtype.itemsize, piece.data)

    # Made by fork, the processes share the open archive, and nothing need be sent to them.
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write, args=(first,)) for first in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise PredecodeError("a process that wrote parameters ended early; what it printed says why")


def main(arguments: Sequence[str]) -> int:
    """The command; see the module's docstring."""
    match arguments:
        case ["export", *options]:
            export(options)
        case ["fill", _, *_]:
            for folder in map(Path, arguments[1:]):
                start = time.monotonic()
                fill(folder)
                print(f"{folder}: parameters written in {time.monotonic() - start:.0f} s")
            return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
