"""Where checkpoint tensors come from: one protocol for files, generated weights and tensors in memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from predecode.pipelines.errors import PredecodeError

Region = tuple[slice, ...]
"""Half-open range per dimension, starts and stops given, no steps."""


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """What is known of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: torch.dtype


class TensorSource(Protocol):
    """A checkpoint in Hugging Face layout whose tensors are read in parts.

    ``where`` names the source in messages, ``tensors`` lists every tensor that it holds.
    """

    where: str
    tensors: Mapping[str, TensorFacts]

    def read(self, name: str, region: Region) -> torch.Tensor:
        """The elements of ``region`` (one range per dimension) of tensor ``name``, in the stored dtype."""
        ...


class DictSource:
    """Tensors held in memory, for example a transformers model's ``state_dict()``."""

    def __init__(self, tensors: Mapping[str, torch.Tensor], where: str = "tensors in memory"):
        self.where = where
        self.tensors = {name: TensorFacts(tuple(t.shape), t.dtype) for name, t in tensors.items()}
        self._data = {name: t.detach() for name, t in tensors.items()}

    def read(self, name: str, region: Region) -> torch.Tensor:
        """See `TensorSource.read`."""
        require_region(self, name, region)
        return self._data[name][region]


def require_region(source: TensorSource, name: str, region: Region) -> TensorFacts:
    """Facts of ``name``; `PredecodeError` where the tensor is absent or ``region`` leaves it."""
    facts = source.tensors.get(name)
    if facts is None:
        raise PredecodeError(f"{source.where}: tensor {name} is missing")
    inside = len(region) == len(facts.shape) and all(
        0 <= part.start <= part.stop <= size and part.step is None
        for part, size in zip(region, facts.shape, strict=True)
    )
    if not inside:
        ranges = ", ".join(f"{part.start}:{part.stop}" for part in region)
        raise PredecodeError(f"{source.where}: [{ranges}] is not inside tensor {name} of shape {list(facts.shape)}")
    return facts
