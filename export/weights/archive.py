"""Writing an IREE parameter archive (.irpa, format 0) piece by piece.

IREE's own writer copies parameters that already lie in memory or in files as a whole. Here the archive is
laid out from names and lengths alone, and filled in any order, so no parameter is ever held completely::

    header         88 bytes: "IRPA", version, entry count, the three segments as (offset, length)
    entry table    80 bytes per parameter: references into the other two segments
    metadata       the names, end to end
    storage        the parameters, each at a multiple of 256 bytes

Further entries may cover several parameters that lie together (see `spans`).
"""

import os
import struct
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch

from predecode.export.weights.spans import Span
from predecode.pipelines.errors import PredecodeError

ALIGNMENT = 256
"""Bytes: a multiple of the lines of every device's cache. Kernels that read a layer's parameters from its entry read
twice the lines where one does not begin with a line."""
_HEADER = struct.Struct("<4sHHQQQQ6Q")
_ENTRY = struct.Struct("<QIQ7Q")
_ENTRY_ALIGNMENT = 16
_DATA_ENTRY = 2
_FILE_ALIGNMENT = 4096


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


class ArchiveWriter:
    """Creates ``path`` with room for every parameter in ``lengths``, then takes their contents.

    ``lengths`` holds the bytes of at least one parameter by name; ``spans`` are parameters of entries that cover
    several. A context manager: the archive appears
    under its name when the block ends well, and a failure leaves nothing. Bytes never written are zero.
    """

    def __init__(self, path: Path, lengths: dict[str, int], spans: Mapping[str, Span] = MappingProxyType({})):
        self._path = path
        self._partial = path.with_name(path.name + ".partial")
        self._lengths = lengths
        self._spans = spans
        self._offsets: dict[str, int] = {}
        self._descriptor = -1

    def __enter__(self) -> "ArchiveWriter":
        head, self._offsets, size = _lay_out(self._lengths, self._spans)
        self._descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.ftruncate(self._descriptor, size)
            self._write_bytes(memoryview(head), 0)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(self, kind, value, traceback) -> None:
        if kind is not None:
            self._discard()
            return
        os.close(self._descriptor)
        os.replace(self._partial, self._path)

    def write(self, name: str, offset: int, data: torch.Tensor) -> None:
        """Put the bytes of ``data`` (any dtype) at byte ``offset`` of parameter ``name``."""
        content = memoryview(data.contiguous().reshape(-1).view(torch.uint8).numpy())
        if offset + len(content) > self._lengths[name]:
            raise PredecodeError(
                f"parameter {name} has {self._lengths[name]} bytes; {len(content)} at {offset} do not fit"
            )
        self._write_bytes(content, self._offsets[name] + offset)

    def _write_bytes(self, content: memoryview, offset: int) -> None:
        while len(content):
            written = os.pwrite(self._descriptor, content, offset)
            content, offset = content[written:], offset + written

    def _discard(self) -> None:
        os.close(self._descriptor)
        self._partial.unlink(missing_ok=True)


def storage_offsets(lengths: dict[str, int]) -> dict[str, int]:
    """Offset of each parameter in the storage segment."""
    offsets, end = {}, 0
    for name, length in lengths.items():
        offsets[name] = _align(end, ALIGNMENT)
        end = offsets[name] + length
    return offsets


def _lay_out(lengths: dict[str, int], spans: Mapping[str, Span]) -> tuple[bytes, dict[str, int], int]:
    """Header, table and names as bytes; the absolute offset of each parameter; the file's size."""
    begins = storage_offsets(lengths)
    entries = [(name, begins[name], lengths[name]) for name in lengths]
    covering = {span.entry: (begins[name] - span.offset, span.entry_length) for name, span in spans.items()}
    entries += [(entry, *place) for entry, place in covering.items()]
    names = [name.encode() for name, _, _ in entries]
    stride = _align(_ENTRY.size, _ENTRY_ALIGNMENT)
    table_begin = _align(_HEADER.size, _ENTRY_ALIGNMENT)
    table_length = len(names) * stride - (stride - _ENTRY.size)
    names_begin = table_begin + table_length
    names_length = sum(map(len, names))
    storage_begin = _align(names_begin + names_length, ALIGNMENT)

    table = bytearray()
    name_offset = 0
    for (_, begin, length), encoded in zip(entries, names, strict=True):
        entry = _ENTRY.pack(_ENTRY.size, _DATA_ENTRY, 0, name_offset, len(encoded), 0, 0, ALIGNMENT, begin, length)
        table += entry.ljust(stride, b"\0")
        name_offset += len(encoded)
    offsets = {name: storage_begin + begin for name, begin in begins.items()}
    storage_length = max(begins[name] + lengths[name] for name in lengths)
    segments = (table_begin, table_length, names_begin, names_length, storage_begin, storage_length)
    header = _HEADER.pack(b"IRPA", 0, 0, _HEADER.size, 0, 0, len(names), *segments)
    head = header.ljust(table_begin, b"\0") + bytes(table[:table_length]) + b"".join(names)
    return head, offsets, _align(storage_begin + storage_length, _FILE_ALIGNMENT)
