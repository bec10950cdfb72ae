"""Moving a checkpoint's weights to where a model reads them: an .irpa file, or a torch model's tensors."""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.export.config import ModelConfig
from predecode.export.shard import Shard
from predecode.export.weights.archive import ArchiveWriter, storage_offsets
from predecode.export.weights.checkpoint_tensors import check_checkpoint, fused_layers
from predecode.export.weights.mapping import ParameterMapping
from predecode.export.weights.parameters import Parameters
from predecode.export.weights.source import TensorFacts, TensorSource
from predecode.export.weights.spans import Span, layer_spans
from predecode.pipelines.errors import PredecodeError

Progress = Callable[[str, int, int], None]
"""Called with a parameter's name, the bytes written so far and the bytes in all."""


def model_parameters(
    source: TensorSource,
    config: ModelConfig,
    layers: tuple[int, ...] | None,
    shard: Shard,
    element_format: ElementFormat,
    max_context: int,
) -> list[Parameters]:
    """Everything that ``layers`` need, or the whole model where ``layers`` is None."""
    mapping = ParameterMapping(config, shard, element_format, fused_layers(source, config))
    outer = mapping.outer() if layers is None else []
    chosen = range(config.num_hidden_layers) if layers is None else layers
    return [
        mapping.rope_table(max_context),
        *outer,
        *(part for layer in chosen for part in mapping.layer(layer)),
    ]


def write_parameters(
    path: Path,
    source: TensorSource,
    config: ModelConfig,
    layers: tuple[int, ...] | None,
    shard: Shard,
    element_format: ElementFormat,
    max_context: int,
    progress: Progress | None = None,
) -> dict[str, TensorFacts]:
    """Write the parameters of ``layers`` (None: the whole model) for one rank to the archive ``path``.

    Returns shape and dtype of each parameter. Equal input gives equal bytes. Memory stays within a few
    bands of `BAND_BYTES`, whatever the sizes of the tensors. Raises `PredecodeError` naming the tensor that
    is missing, not expected or misshapen; a failure leaves no file.
    """
    if layers is not None:
        config.require_layers(layers)
    parts = model_parameters(source, config, layers, shard, element_format, max_context)
    check_checkpoint(source, config, (name for part in parts for name in part.needed))
    outputs = {name: facts for part in parts for name, facts in part.outputs.items()}
    lengths = parameter_lengths(parts)
    total, done = sum(lengths.values()), 0
    spans = layer_spans(storage_offsets(lengths), lengths)
    with ArchiveWriter(Path(path), lengths, spans) as archive:
        for part in parts:
            for piece in part.pieces(source):
                archive.write(piece.name, piece.offset * piece.data.dtype.itemsize, piece.data)
                done += piece.data.numel() * piece.data.dtype.itemsize
                if progress is not None:
                    progress(piece.name, done, total)
    return outputs


def parameter_lengths(parts: Iterable[Parameters]) -> dict[str, int]:
    """Bytes of each parameter that ``parts`` make, by name, in their order."""
    outputs = {name: facts for part in parts for name, facts in part.outputs.items()}
    return {name: math.prod(facts.shape) * facts.dtype.itemsize for name, facts in outputs.items()}


def parameter_spans(
    source: TensorSource,
    config: ModelConfig,
    layers: tuple[int, ...] | None,
    shard: Shard,
    element_format: ElementFormat,
    max_context: int,
) -> dict[str, Span]:
    """Where `write_parameters`, given the same, puts each layer's parameters."""
    parts = model_parameters(source, config, layers, shard, element_format, max_context)
    lengths = parameter_lengths(parts)
    return layer_spans(storage_offsets(lengths), lengths)


def load_into(
    state: Mapping[str, torch.Tensor],
    source: TensorSource,
    config: ModelConfig,
    shard: Shard,
    element_format: ElementFormat,
) -> None:
    """Fill every tensor of ``state`` (a ``state_dict()`` of the model or of a segment of it) in place.

    Raises `PredecodeError` where a tensor of ``state`` is no parameter of the model, or has another shape or
    dtype than this rank's.
    """
    parts = list(_parameters_of(state, source, config, shard, element_format))
    outputs = {name: facts for part in parts for name, facts in part.outputs.items()}
    for name, tensor in state.items():
        if name not in outputs:
            raise PredecodeError(f"parameter {name} is not one of this {config.model_type} model")
        given = TensorFacts(tuple(tensor.shape), tensor.dtype)
        if given != outputs[name]:
            raise PredecodeError(
                f"parameter {name} is {_describe(given)}, but rank {shard.rank} of {shard.tensor_parallel} "
                f"in {element_format.name} has {_describe(outputs[name])}"
            )
    check_checkpoint(source, config, (name for part in parts for name in part.needed))
    with torch.no_grad():
        for part in parts:
            for piece in part.pieces(source):
                if piece.name in state:
                    flat = state[piece.name].view(-1)
                    flat[piece.offset : piece.offset + piece.data.numel()] = piece.data.reshape(-1)


def _parameters_of(
    state: Mapping[str, torch.Tensor],
    source: TensorSource,
    config: ModelConfig,
    shard: Shard,
    element_format: ElementFormat,
) -> Iterator[Parameters]:
    """The `Parameters` that make at least one tensor of ``state``."""
    mapping = ParameterMapping(config, shard, element_format, fused_layers(source, config))
    if "rope_table" in state:
        yield mapping.rope_table(state["rope_table"].shape[0])
    numbers = (int(match[1]) for name in state if (match := re.match(r"layers\.(\d+)\.", name)))
    layers = sorted(number for number in set(numbers) if number < config.num_hidden_layers)
    for part in [*mapping.outer(), *(part for layer in layers for part in mapping.layer(layer))]:
        if any(name in state for name in part.outputs):
            yield part


def _describe(facts: TensorFacts) -> str:
    return f"{str(facts.dtype).removeprefix('torch.')}{list(facts.shape)}"
