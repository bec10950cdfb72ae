"""safetensors files with NumPy arrays, FP8 and bfloat16 included; reading maps the file into memory.

The format is a little-endian 64-bit header length, a JSON header of dtype, shape and byte range per name, and
the data (https://github.com/huggingface/safetensors, "Format").
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from predecode.pipelines.errors import PredecodeError

DTYPES = {
    "BOOL": np.dtype(np.bool_),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "F32": np.dtype(np.float32),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_HEADER_ALIGNMENT = 8


class TensorFileError(PredecodeError):
    """A file that is no safetensors file, or holds a dtype that this module does not know."""


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write ``tensors`` in name order; the same tensors give the same bytes."""
    header, end = {}, 0
    for name in sorted(tensors):
        array = tensors[name]
        if array.dtype not in _NAMES:
            raise TensorFileError(
                f"{name} is {array.dtype}, which a tensor file cannot hold; use one of {list(DTYPES)}"
            )
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + array.nbytes],
        }
        end += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER_ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(tensors):
            file.write(np.ascontiguousarray(tensors[name]).tobytes())


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of the file as read-only arrays over the mapped file."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > size - 8:
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        data = np.zeros(0, np.uint8)
        if size > 8 + length:
            data = np.memmap(path, np.uint8, mode="r", offset=8 + length, shape=(size - 8 - length,))
        return {name: _tensor(data, entry) for name, entry in header.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TensorFileError(f"{path} is no whole safetensors file ({error}); export or copy it again") from None


def _tensor(data: np.ndarray, entry: dict) -> np.ndarray:
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    first, last = entry["data_offsets"]
    if last > data.size or last - first != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"bytes {first}..{last} do not hold {dtype}{list(shape)}")
    return data[first:last].view(dtype).reshape(shape)
