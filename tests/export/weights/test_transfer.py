"""Archives and loaded models hold the same bytes, from any source."""

import json
import re

import iree.runtime as rt
import pytest
import torch
from safetensors.torch import save_file

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ
from predecode.export.shard import Shard
from predecode.export.weights import (
    DictSource,
    SafetensorsCheckpoint,
    SeededWeights,
    load_into,
    parameter_spans,
    write_parameters,
)
from predecode.pipelines.errors import PredecodeError
from tests.export.weights.checkpoints import DEEPSEEK
from tests.export.weights.checkpoints import TWO_LAYERS as CONFIG


def read_archive(path):
    """Name -> bytes of the single parameters, through IREE's own reader."""
    index = rt.ParameterIndex()
    index.load(str(path))
    whole_layer = re.compile(r"layers\.\d+")
    return {name: bytes(entry.file_view) for name, entry in index.items() if not whole_layer.fullmatch(name)}


def loaded(outputs, source, config, shard, element_format):
    state = {name: torch.zeros(facts.shape, dtype=facts.dtype) for name, facts in outputs.items()}
    load_into(state, source, config, shard, element_format)
    return {name: tensor.flatten().view(torch.uint8).numpy().tobytes() for name, tensor in state.items()}


def read_all(source):
    return {
        name: source.read(name, tuple(slice(0, size) for size in facts.shape)) for name, facts in source.tensors.items()
    }


@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ], ids=lambda f: f.name)
@pytest.mark.parametrize("layers", [None, (1,)])
@pytest.mark.parametrize("shard", [Shard(), Shard(2, 1)], ids=["whole", "rank 1 of 2"])
def test_archive_equals_loaded_model(tmp_path, shard, layers, element_format):
    source = SeededWeights(CONFIG, 3)
    outputs = write_parameters(tmp_path / "p.irpa", source, CONFIG, layers, shard, element_format, 64)
    assert read_archive(tmp_path / "p.irpa") == loaded(outputs, source, CONFIG, shard, element_format)


def test_a_layers_entry_is_where_its_spans_say(tmp_path):
    what = SeededWeights(CONFIG, 3), CONFIG, None, Shard(2, 1), E4M3FN, 64
    write_parameters(tmp_path / "p.irpa", *what)
    single, index = read_archive(tmp_path / "p.irpa"), rt.ParameterIndex()
    index.load(str(tmp_path / "p.irpa"))
    layers = dict(index.items())
    spans = parameter_spans(*what)
    assert spans.keys() == {name for name in single if name.startswith("layers.")}
    for name, span in spans.items():
        whole = bytes(layers[span.entry].file_view)
        assert len(whole) == span.entry_length
        assert whole[span.offset : span.offset + span.length] == single[name]


@pytest.mark.parametrize("config", [CONFIG, DEEPSEEK], ids=lambda c: c.model_type)
def test_sources_of_the_same_numbers_give_the_same_bytes(tmp_path, config):
    seeded = SeededWeights(config, 5)
    tensors = read_all(seeded)
    names = sorted(tensors)
    files = {f"model-0000{part + 1}-of-00003.safetensors": names[part::3] for part in range(3)}
    for file, part in files.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in files.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    archives = []
    sources = (seeded, DictSource(tensors), SafetensorsCheckpoint(tmp_path), SeededWeights(config, 6))
    for number, source in enumerate(sources):
        path = tmp_path / f"folder {number}" / "p.irpa"
        path.parent.mkdir()
        write_parameters(path, source, config, None, Shard(2, 0), E4M3FN, 64)
        archives.append(path.read_bytes())
    assert archives[0] == archives[1] == archives[2]
    assert archives[0] != archives[3]


def test_bands_do_not_change_the_bytes(tmp_path, monkeypatch):
    source = SeededWeights(CONFIG, 3)
    write_parameters(tmp_path / "one.irpa", source, CONFIG, None, Shard(), E4M3FNUZ, 64)
    monkeypatch.setattr("predecode.export.weights.parameters.BAND_BYTES", 1)
    write_parameters(tmp_path / "many.irpa", source, CONFIG, None, Shard(), E4M3FNUZ, 64)
    assert (tmp_path / "one.irpa").read_bytes() == (tmp_path / "many.irpa").read_bytes()


def test_progress_ends_at_the_total(tmp_path):
    calls = []
    outputs = write_parameters(
        tmp_path / "p.irpa",
        SeededWeights(CONFIG, 0),
        CONFIG,
        (0,),
        Shard(),
        E4M3FN,
        64,
        progress=lambda *call: calls.append(call),
    )
    done = [call[1] for call in calls]
    total = sum(len(data) for data in read_archive(tmp_path / "p.irpa").values())
    assert done == sorted(done) and done[-1] == calls[-1][2] == total
    assert {call[0] for call in calls} == outputs.keys()


def test_part_of_a_state_is_filled_alone():
    source = SeededWeights(CONFIG, 0)
    state = {"layers.1.mlp.experts.down.scales": torch.zeros(5, 2, 2), "rope_table": torch.zeros(16, 64)}
    load_into(state, source, CONFIG, Shard(), E4M3FN)
    assert all((tensor != 0).any() for tensor in state.values())


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        (
            "layers.0.mlp.router.weight",
            torch.zeros(8, 256),
            "parameter layers.0.mlp.router.weight is not one of",
        ),
        (
            "layers.9.input_norm.weight",
            torch.zeros(256),
            "parameter layers.9.input_norm.weight is not one of",
        ),
        (
            "final_norm.weight",
            torch.zeros(256),
            "is float32\\[256\\], but rank 0 of 1 in e4m3fn has bfloat16\\[256\\]",
        ),
        (
            "layers.0.attention.q_b.values",
            torch.zeros(32, 8, 16, 16, dtype=torch.float8_e4m3fnuz),
            "is float8_e4m3fnuz\\[32, 8, 16, 16\\], but rank 0 of 1 in e4m3fn has float8_e4m3fn",
        ),
        (
            "layers.0.attention.q_b.scales",
            torch.zeros(1, 4),
            "is float32\\[1, 4\\], but .* has float32\\[4, 1\\]",
        ),
    ],
)
def test_foreign_state_is_refused(name, tensor, message):
    with pytest.raises(PredecodeError, match=message):
        load_into({name: tensor}, SeededWeights(CONFIG, 0), CONFIG, Shard(), E4M3FN)
