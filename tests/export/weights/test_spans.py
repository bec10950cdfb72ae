"""Entries of the archive that cover a layer's parameters."""

import iree.runtime as rt
import numpy as np
import pytest
import torch

from predecode.export.weights.archive import ArchiveWriter, storage_offsets
from predecode.export.weights.spans import Span, layer_spans

LENGTHS = {"rope_table": 100, "layers.2.a": 70, "layers.2.b": 64, "layers.11.a": 5, "output": 9}


def spans():
    return layer_spans(storage_offsets(LENGTHS), LENGTHS)


def test_offsets_count_from_the_layers_first_parameter():
    assert spans() == {
        "layers.2.a": Span("layers.2", 0, 70, 320),
        "layers.2.b": Span("layers.2", 256, 64, 320),
        "layers.11.a": Span("layers.11", 0, 5, 5),
    }


def test_the_entry_is_the_bytes_of_its_parameters(tmp_path):
    path = tmp_path / "parameters.irpa"
    random = np.random.default_rng(0)
    data = {name: random.integers(0, 256, length, np.uint8) for name, length in LENGTHS.items()}
    with ArchiveWriter(path, LENGTHS, spans()) as archive:
        for name, array in data.items():
            archive.write(name, 0, torch.from_numpy(array))
    index = rt.ParameterIndex()
    index.load(str(path))
    read = {name: np.array(entry.file_view).view(np.uint8) for name, entry in index.items()}
    assert set(read) == {*LENGTHS, "layers.2", "layers.11"}
    for name, span in spans().items():
        np.testing.assert_array_equal(read[span.entry][span.offset : span.offset + span.length], data[name])


def test_parameters_of_a_layer_that_lie_apart():
    apart = {"layers.2.a": 70, "output": 9, "layers.2.b": 64}
    with pytest.raises(ValueError, match=r"the parameters of layers.2 do not lie together"):
        layer_spans(storage_offsets(apart), apart)
