"""A checkpoint folder of safetensors files, read in parts.

The files are read, not mapped: mapped pages count as memory of the process, and a checkpoint is larger than
that. A safetensors file is a little-endian 64-bit header length, a JSON header
``{name: {"dtype", "shape", "data_offsets": [begin, end]}}``, and the data, which offsets count from.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from predecode.export.weights.source import Region, TensorFacts, require_region
from predecode.pipelines.errors import PredecodeError

INDEX_FILE = "model.safetensors.index.json"
_MAXIMUM_HEADER_BYTES = 100_000_000

_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
}


@dataclass(frozen=True, slots=True)
class _Stored:
    """Where one tensor's bytes lie: file and byte offset from the file's beginning."""

    path: Path
    offset: int


class SafetensorsCheckpoint:
    """The tensors of a Hugging Face checkpoint folder, a `TensorSource`.

    With ``model.safetensors.index.json`` the files that it names are read, else every ``model*.safetensors``.
    All headers are read and checked at once; data only by `read`.
    """

    def __init__(self, folder: Path | str):
        folder = Path(folder)
        self.where = str(folder)
        self.tensors: dict[str, TensorFacts] = {}
        self._stored: dict[str, _Stored] = {}
        indexed = _read_index(folder)
        paths = sorted(set(indexed.values())) if indexed else sorted(folder.glob("model*.safetensors"))
        if not paths:
            raise PredecodeError(f"{folder} is no checkpoint folder: it holds no model*.safetensors")
        for path in paths:
            for name, (facts, offset) in _read_header(path).items():
                if name in self.tensors:
                    raise PredecodeError(
                        f"{folder}: tensor {name} is in both {self._stored[name].path.name} and {path.name}"
                    )
                self.tensors[name] = facts
                self._stored[name] = _Stored(path, offset)
        for name, path in indexed.items():
            if name not in self._stored or self._stored[name].path != path:
                raise PredecodeError(f"{folder}: {INDEX_FILE} says that tensor {name} is in {path.name}; it is not")

    def read(self, name: str, region: Region) -> torch.Tensor:
        """See `TensorSource.read`. Whole rows are read and cut, so memory is the rows' size."""
        facts = require_region(self, name, region)
        stored = self._stored[name]
        extents = [part.stop - part.start for part in region]
        # Dimensions before `outer` select one position each, so the bytes from `outer` on are contiguous.
        outer = next((i for i, extent in enumerate(extents) if extent != 1), max(len(extents) - 1, 0))
        strides = [math.prod(facts.shape[i + 1 :]) for i in range(len(extents))]
        first = sum(part.start * stride for part, stride in zip(region[: outer + 1], strides, strict=False))
        count = extents[outer] * strides[outer] if extents else 1
        data = _read_bytes(stored.path, stored.offset + first * facts.dtype.itemsize, count * facts.dtype.itemsize)
        whole = data.view(facts.dtype).reshape(extents[outer : outer + 1] + list(facts.shape[outer + 1 :]))
        return whole[(slice(None), *region[outer + 1 :])[: whole.dim()]].reshape(extents)


def _read_index(folder: Path) -> dict[str, Path]:
    """Tensor name -> file of the index, empty where the folder has none."""
    path = folder / INDEX_FILE
    if not path.exists():
        return {}
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        indexed = {str(name): folder / file for name, file in weight_map.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise PredecodeError(f"{path} cannot be read as a safetensors index: {error}") from None
    for file in sorted(set(indexed.values())):
        if not file.is_file():
            raise PredecodeError(f"{path} names {file.name}, which is not in the folder; download it")
    return indexed


def _read_header(path: Path) -> dict[str, tuple[TensorFacts, int]]:
    """Facts and byte offset of every tensor in the file; `PredecodeError` where it is damaged."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, _MAXIMUM_HEADER_BYTES):
                raise PredecodeError(f"{path} is not a complete safetensors file; download it again")
            header = json.loads(file.read(length))
    except (OSError, ValueError) as error:
        raise PredecodeError(f"{path} cannot be read as a safetensors file: {error}") from None
    if not isinstance(header, dict):
        raise PredecodeError(f"{path} cannot be read as a safetensors file: its header is no object")
    header.pop("__metadata__", None)
    data_begin = 8 + length
    return {name: _entry(path, name, entry, data_begin, size) for name, entry in header.items()}


def _entry(path: Path, name: str, entry: Any, data_begin: int, size: int) -> tuple[TensorFacts, int]:
    try:
        dtype_name, shape = entry["dtype"], tuple(int(extent) for extent in entry["shape"])
        begin, end = (int(offset) for offset in entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        raise PredecodeError(f"{path}: the header entry of tensor {name} is damaged; download the file again") from None
    if dtype_name not in _DTYPES:
        raise PredecodeError(f"{path}: tensor {name} has dtype {dtype_name}, which is not supported")
    dtype = _DTYPES[dtype_name]
    if min(shape, default=0) < 0 or begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise PredecodeError(f"{path}: tensor {name} of {dtype_name}{list(shape)} cannot fill {end - begin} bytes")
    if data_begin + end > size:
        raise PredecodeError(
            f"{path} is truncated: tensor {name} ends at byte {data_begin + end}, the file at {size}; download it again"
        )
    return TensorFacts(shape, dtype), data_begin + begin


def _read_bytes(path: Path, offset: int, count: int) -> torch.Tensor:
    """uint8 [count]: the file's bytes from ``offset`` on."""
    data = torch.empty(count, dtype=torch.uint8)
    view = memoryview(data.numpy())
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            done = 0
            while done < count:
                got = os.preadv(descriptor, [view[done:]], offset + done)
                if not got:
                    raise PredecodeError(f"{path} ended at byte {offset + done} while it was read; it was changed")
                done += got
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PredecodeError(f"{path} cannot be read: {error}") from None
    return data
