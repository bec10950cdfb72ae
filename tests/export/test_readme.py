"""The README's Python, run as it stands."""

import re
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from predecode.pipelines import DecodeSession, PagedSequence, PagePool
from tests.connected_ranks import run_ranks
from tests.export.conftest import export_tiny
from tests.export.readme_ranks import run_block

README = Path(__file__).parents[2] / "README.md"


@pytest.fixture
def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.fixture
def decoded(blocks, tiny_artifact, tmp_path, monkeypatch) -> dict:
    """What the first block leaves behind."""
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "tiny-cpu").symlink_to(tiny_artifact)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(blocks[0], names)
    return names


def test_two_sequences_are_decoded(decoded):
    assert decoded["logits"].shape[0] == 2 and np.isfinite(decoded["logits"]).all()
    assert [sequence.length for sequence in decoded["sequences"]] == [8, 8]
    assert decoded["session"].manifest.model.name == "tiny"


def test_connected_ranks_have_one_answer(blocks, tmp_path):
    options = {"rows": (2,), "target": "gfx942"}
    of_rank = {"tensor_parallel": 2, "reduce": "peers"}
    folders = [export_tiny(tmp_path / f"rank{number}", rank=number, **options, **of_rank) for number in range(2)]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joined = np.concatenate(run_ranks(run_block, [(blocks[1], folder, port) for folder in folders]), axis=1)
    session = DecodeSession.open(export_tiny(tmp_path / "whole", **options), "emulated")
    placement = PagePool(session.manifest.geometry).append([PagedSequence(), PagedSequence()])
    whole = session.step(tokens=np.array([386, 425]), **placement.as_arguments())["logits"]
    cosine = (joined * whole).sum(1) / np.linalg.norm(joined, axis=1) / np.linalg.norm(whole, axis=1)
    assert cosine.min() > 0.99


class TwoRanks:
    """`torch.distributed` of two threads: sums are made in place."""

    def __init__(self):
        self.parts: list[torch.Tensor] = []
        self.barrier = threading.Barrier(2)

    def all_reduce(self, tensor: torch.Tensor) -> None:
        self.parts.append(tensor.float())
        self.barrier.wait(60)
        tensor.copy_(sum(self.parts))
        self.barrier.wait(60)
        self.parts = []
        self.barrier.wait(60)


def test_ranks_are_summed_in_place(blocks, decoded, tmp_path, monkeypatch):
    ranks = TwoRanks()
    monkeypatch.setattr(torch.distributed, "all_reduce", ranks.all_reduce, raising=False)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    options = {"rows": (2,), "tensor_parallel": 2}
    folders = [export_tiny(tmp_path / f"rank{number}", rank=number, **options) for number in range(2)]
    logits: dict[int, np.ndarray] = {}

    def run(number: int) -> None:
        names = {name: decoded[name] for name in ("DecodeSession", "tokens", "placement")}
        exec("import torch\n" + blocks[2].replace("artifacts/rank0-external", str(folders[number])), names)
        logits[number] = names["logits"]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    joined = np.concatenate([logits[0], logits[1]], axis=1)
    decoded["session"].reset()  # the ranks' caches are empty, too
    whole = decoded["session"].step(tokens=decoded["tokens"], **decoded["placement"].as_arguments())["logits"]
    cosine = (joined * whole).sum(1) / np.linalg.norm(joined, axis=1) / np.linalg.norm(whole, axis=1)
    assert cosine.min() > 0.99
