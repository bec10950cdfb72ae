"""Checkpoint folders as the safetensors library writes them, and damaged ones."""

import json

import pytest
import torch
from safetensors.torch import save_file

from predecode.export.weights import SafetensorsCheckpoint
from predecode.pipelines.errors import PredecodeError

TENSORS = {
    "matrix": torch.arange(12 * 40, dtype=torch.float32).reshape(12, 40),
    "fp8": torch.arange(64 * 48, dtype=torch.int32)
    .remainder(120)
    .to(torch.uint8)
    .reshape(64, 48)
    .view(torch.float8_e4m3fn),
    "stack": torch.arange(5 * 6 * 7, dtype=torch.bfloat16).reshape(5, 6, 7),
    "vector": torch.arange(9, dtype=torch.float16),
    "scalar": torch.tensor(3.5),
    "empty": torch.zeros(0, 4),
}


@pytest.fixture
def folder(tmp_path):
    """Two files and an index, as `save_pretrained` leaves them."""
    names = list(TENSORS)
    files = {"model-00001-of-00002.safetensors": names[:3], "model-00002-of-00002.safetensors": names[3:]}
    for file, part in files.items():
        save_file({name: TENSORS[name] for name in part}, tmp_path / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in files.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def whole(tensor):
    return tuple(slice(0, size) for size in tensor.shape)


def equal(given, expected):
    expected = expected.contiguous()
    return (
        given.dtype == expected.dtype
        and given.shape == expected.shape
        and (given.contiguous().flatten().view(torch.uint8).tolist() == expected.flatten().view(torch.uint8).tolist())
    )


@pytest.mark.parametrize("indexed", [True, False])
def test_reads_everything(folder, indexed):
    if not indexed:
        (folder / "model.safetensors.index.json").unlink()
    checkpoint = SafetensorsCheckpoint(folder)
    assert checkpoint.tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        facts = checkpoint.tensors[name]
        assert (facts.shape, facts.dtype) == (tuple(tensor.shape), tensor.dtype)
        assert equal(checkpoint.read(name, whole(tensor)), tensor), name


@pytest.mark.parametrize(
    ("name", "region"),
    [
        ("matrix", (slice(3, 4), slice(0, 40))),
        ("matrix", (slice(3, 4), slice(7, 8))),
        ("matrix", (slice(2, 9), slice(39, 40))),
        ("matrix", (slice(5, 5), slice(0, 3))),
        ("fp8", (slice(16, 48), slice(16, 32))),
        ("stack", (slice(2, 3), slice(1, 5), slice(3, 6))),
        ("stack", (slice(4, 5), slice(5, 6), slice(0, 7))),
        ("stack", (slice(1, 4), slice(2, 3), slice(6, 7))),
        ("vector", (slice(4, 9),)),
    ],
)
def test_reads_regions(folder, name, region):
    assert equal(SafetensorsCheckpoint(folder).read(name, region), TENSORS[name][region])


@pytest.mark.parametrize(
    "region",
    [
        (slice(0, 13), slice(0, 40)),
        (slice(0, 12),),
        (slice(-1, 12), slice(0, 40)),
        (slice(4, 3), slice(0, 1)),
    ],
)
def test_region_outside_is_refused(folder, region):
    with pytest.raises(PredecodeError, match="not inside tensor matrix"):
        SafetensorsCheckpoint(folder).read("matrix", region)


def test_absent_tensor_is_named(folder):
    with pytest.raises(PredecodeError, match="tensor nothing is missing"):
        SafetensorsCheckpoint(folder).read("nothing", ())


SECOND = "model-00002-of-00002.safetensors"


def truncate(folder):
    data = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(data[:-1])


def truncate_header(folder):
    (folder / SECOND).write_bytes((folder / SECOND).read_bytes()[:100])


def empty_file(folder):
    (folder / SECOND).write_bytes(b"")


def not_json(folder):
    (folder / SECOND).write_bytes((2).to_bytes(8, "little") + b"{x")


def lose_file(folder):
    (folder / SECOND).unlink()


def edit_index(change):
    def edit(folder):
        path = folder / "model.safetensors.index.json"
        index = json.loads(path.read_text())
        change(index)
        path.write_text(json.dumps(index))

    return edit


def edit_header(change):
    def edit(folder):
        data = (folder / SECOND).read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        (folder / SECOND).write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])

    return edit


def duplicate(folder):
    (folder / "model.safetensors.index.json").unlink()
    save_file({"matrix": TENSORS["matrix"]}, folder / "model-00003-of-00003.safetensors")


def no_files(folder):
    for path in list(folder.iterdir()):
        path.unlink()


BAD_FOLDERS = {
    "truncated data": (truncate, "is truncated: tensor"),
    "truncated header": (truncate_header, "not a complete safetensors file"),
    "empty file": (empty_file, "not a complete safetensors file"),
    "header is no JSON": (not_json, "cannot be read as a safetensors file"),
    "index names a missing file": (
        lose_file,
        "names model-00002-of-00002.safetensors, which is not in the folder",
    ),
    "index is no index": (
        edit_index(lambda index: index.pop("weight_map")),
        "cannot be read as a safetensors index",
    ),
    "index names an absent tensor": (
        edit_index(lambda index: index["weight_map"].update(ghost=SECOND)),
        f"says that tensor ghost is in {SECOND}; it is not",
    ),
    "index names the other file": (
        edit_index(lambda index: index["weight_map"].update(matrix=SECOND)),
        f"says that tensor matrix is in {SECOND}; it is not",
    ),
    "unknown dtype": (edit_header(lambda h: h["vector"].update(dtype="F4")), "tensor vector has dtype F4"),
    "size does not match": (edit_header(lambda h: h["vector"].update(shape=[8])), "cannot fill 18 bytes"),
    "entry without offsets": (
        edit_header(lambda h: h["vector"].pop("data_offsets")),
        "entry of tensor vector is damaged",
    ),
    "same tensor twice": (duplicate, "tensor matrix is in both"),
    "no files": (no_files, "holds no model"),
}


@pytest.mark.parametrize(("damage", "message"), BAD_FOLDERS.values(), ids=BAD_FOLDERS.keys())
def test_bad_folder_is_one_line(folder, damage, message):
    damage(folder)
    with pytest.raises(PredecodeError, match=message) as raised:
        SafetensorsCheckpoint(folder)
    assert "\n" not in str(raised.value)


def test_file_cut_while_reading(folder):
    checkpoint = SafetensorsCheckpoint(folder)
    truncate_header(folder)
    with pytest.raises(PredecodeError, match="ended at byte"):
        checkpoint.read("vector", (slice(0, 9),))
