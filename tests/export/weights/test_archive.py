"""The .irpa that is written piece by piece is the file that IREE itself writes, but for the larger alignment."""

import errno
import os

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.export.weights import archive
from predecode.export.weights.archive import ALIGNMENT, ArchiveWriter
from predecode.pipelines.errors import PredecodeError

CONTENTS = {
    "layers.0.attention.qkv_a.values": np.arange(1000, dtype=np.uint8),
    "a": np.array([7], np.uint8),
    "layers.0.attention.qkv_a.scales": np.arange(64, dtype=np.uint8),
    "é.weight": np.full(5000, 3, np.uint8),
}


def write(path, contents, step):
    with ArchiveWriter(path, {name: len(data) for name, data in contents.items()}) as writer:
        for name, data in contents.items():
            for begin in reversed(range(0, len(data), step)):
                writer.write(name, begin, torch.from_numpy(data[begin : begin + step]))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_same_bytes_as_the_library(tmp_path, count, monkeypatch):
    monkeypatch.setattr(archive, "ALIGNMENT", 64)
    contents = dict(list(CONTENTS.items())[:count])
    write(tmp_path / "ours.irpa", contents, 300)
    index = rt.ParameterIndex()
    for name, data in contents.items():
        index.add_buffer(name, data)
    index.create_archive_file(str(tmp_path / "theirs.irpa"))
    assert (tmp_path / "ours.irpa").read_bytes() == (tmp_path / "theirs.irpa").read_bytes()


def test_the_library_reads_it(tmp_path):
    write(tmp_path / "parameters.irpa", CONTENTS, 64)
    index = rt.ParameterIndex()
    index.load(str(tmp_path / "parameters.irpa"))
    read = {name: (entry.file_storage[1], np.array(entry.file_view)) for name, entry in index.items()}
    assert list(read) == list(CONTENTS)
    for name, (offset, data) in read.items():
        assert offset % ALIGNMENT == 0
        assert np.array_equal(data.view(np.uint8), CONTENTS[name])


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16, torch.float32])
def test_bytes_of_any_dtype(tmp_path, dtype):
    data = torch.randn(4, 8).to(dtype)
    with ArchiveWriter(tmp_path / "p.irpa", {"w": 4 * 8 * dtype.itemsize}) as writer:
        writer.write("w", 0, data)
    index = rt.ParameterIndex()
    index.load(str(tmp_path / "p.irpa"))
    (_, entry), *_ = index.items()
    assert bytes(entry.file_view) == data.view(torch.uint8).numpy().tobytes()


def test_piece_beyond_its_parameter_is_refused(tmp_path):
    with (
        pytest.raises(PredecodeError, match="parameter w has 8 bytes; 4 at 6 do not fit"),
        ArchiveWriter(tmp_path / "p.irpa", {"w": 8}) as writer,
    ):
        writer.write("w", 6, torch.zeros(4, dtype=torch.uint8))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_leaves_nothing_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.irpa"
    path.write_bytes(b"old")
    real = os.pwrite

    def full(descriptor, content, offset):
        if offset >= 64 + 128:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"), ArchiveWriter(path, {"w": 64}) as writer:
        writer.write("w", 0, torch.zeros(64, dtype=torch.uint8))
    assert [file.name for file in tmp_path.iterdir()] == ["p.irpa"]
    assert path.read_bytes() == b"old"


def test_short_writes_are_continued(tmp_path, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, offset: real(descriptor, content[:37], offset))
    write(tmp_path / "short.irpa", CONTENTS, 1 << 20)
    monkeypatch.undo()
    write(tmp_path / "whole.irpa", CONTENTS, 1 << 20)
    assert (tmp_path / "short.irpa").read_bytes() == (tmp_path / "whole.irpa").read_bytes()
