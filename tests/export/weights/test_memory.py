"""Memory while a checkpoint is written: a process of its own writes a sparse one of several GB."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from predecode.export.weights.checkpoint_tensors import expected_tensors, scale_name, scale_shape
from tests.export.weights.checkpoints import GLM

CONFIG = replace(
    GLM,
    vocab_size=1 << 18,
    hidden_size=1536,
    intermediate_size=1 << 17,
    num_hidden_layers=1,
    mlp_layer_types=("dense",),
    indexer_types=("full",),
)
LARGEST = 2 * CONFIG.vocab_size * CONFIG.hidden_size  # embedding, bfloat16: 768 MiB

# The peak of the resident set counts from after the imports, and belongs to the new program alone (VmHWM).
PROGRAM = """
import json, sys
from pathlib import Path
import torch
from predecode.custom_kernels.formats import E4M3FNUZ
from predecode.export.config import ModelConfig
from predecode.export.shard import Shard
from predecode.export.weights import SafetensorsCheckpoint, parameters, write_parameters

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

folder, layers, parameters.BAND_BYTES = Path(sys.argv[1]), json.loads(sys.argv[2]), int(sys.argv[3])
torch.zeros(1 << 20).to(torch.bfloat16).sum()
config = ModelConfig.from_folder(folder)
before = peak()
layers = None if layers is None else tuple(layers)
source = SafetensorsCheckpoint(folder)
write_parameters(folder / "p.irpa", source, config, layers, Shard(2, 1), E4M3FNUZ, 1024)
print(peak() - before)
"""


@pytest.fixture(scope="module")
def sparse_checkpoint(tmp_path_factory):
    """A folder whose safetensors file is all hole: zeros that take no space."""
    folder = tmp_path_factory.mktemp("sparse")
    tensors = {}
    for name, tensor in expected_tensors(CONFIG).items():
        tensors[name] = ("F8_E4M3", 1, tensor.shape) if tensor.block_scaled else ("BF16", 2, tensor.shape)
        if tensor.block_scaled:
            tensors[scale_name(name)] = ("F32", 4, scale_shape(tensor.shape))
    header, end = {}, 0
    for name, (dtype, itemsize, shape) in tensors.items():
        begin, end = end, end + itemsize * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    (folder / "config.json").write_text(json.dumps(CONFIG.to_json()))
    assert end > 2 << 30
    return folder


def growth(folder, layers, band_bytes):
    """Bytes by which peak memory grew over what the imports took."""
    arguments = [str(folder), json.dumps(layers), str(band_bytes)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "p.irpa").unlink()
    return int(done.stdout)


def test_memory_does_not_depend_on_sizes(sparse_checkpoint):
    grown = growth(sparse_checkpoint, None, 16 << 20)
    assert grown < LARGEST / 2, f"{grown >> 20} MiB"


def test_whole_tensors_would_be_noticed(sparse_checkpoint):
    """The same measurement with bands as large as the rank's part of a tensor, 96 MiB."""
    part = CONFIG.intermediate_size * CONFIG.hidden_size // 2
    grown = growth(sparse_checkpoint, [0], 1 << 40)
    assert grown > 3 * part, f"{grown >> 20} MiB"
