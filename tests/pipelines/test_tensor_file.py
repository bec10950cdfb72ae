"""safetensors files of our own, against the safetensors package."""

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines.tensor_file import DTYPES, TensorFileError, read_tensors, write_tensors

safetensors = pytest.importorskip("safetensors")


def test_round_trip_of_every_dtype(tmp_path):
    random = np.random.default_rng(0)
    tensors = {name: random.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()}
    tensors |= {"scalar": np.float32(3).reshape(()), "empty": np.zeros((0, 4), np.float32)}
    write_tensors(tmp_path / "t.safetensors", tensors)
    read = read_tensors(tmp_path / "t.safetensors")
    assert sorted(read) == sorted(tensors)
    for name, array in tensors.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


def test_the_package_reads_what_we_write(tmp_path):
    from safetensors.numpy import load_file

    values = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(3, dtype=np.int8)}
    write_tensors(tmp_path / "t.safetensors", values)
    for name, array in load_file(tmp_path / "t.safetensors").items():
        np.testing.assert_array_equal(array, values[name])


def test_we_read_what_the_package_writes(tmp_path):
    from safetensors.numpy import save_file

    values = {"odd": np.arange(3, dtype=np.int8), "wide": np.arange(4, dtype=np.int64)}
    save_file(values, tmp_path / "t.safetensors", metadata={"made": "elsewhere"})
    for name, array in read_tensors(tmp_path / "t.safetensors").items():
        np.testing.assert_array_equal(array, values[name])


def test_bytes_do_not_depend_on_the_order(tmp_path):
    one, two = np.ones(3, np.float32), np.zeros(2, ml_dtypes.bfloat16)
    write_tensors(tmp_path / "a", {"x": one, "y": two})
    write_tensors(tmp_path / "b", {"y": two, "x": one})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keep", [0, 7, 20, -1])
def test_cut_files_are_refused(tmp_path, keep):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"x": np.ones(300, np.float32)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(TensorFileError, match="is no whole safetensors file"):
        read_tensors(path)


def test_unknown_dtypes_are_refused(tmp_path):
    with pytest.raises(TensorFileError, match="x is complex64"):
        write_tensors(tmp_path / "t", {"x": np.zeros(1, np.complex64)})
