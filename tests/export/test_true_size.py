"""Goldens at chosen contexts, made apart from the export."""

import sys

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines.artifact import Artifact
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden import read_golden
from predecode.pipelines.golden_check import compare
from predecode.pipelines.tensor_file import read_tensors, write_tensors
from tests import true_size


@pytest.fixture(scope="module")
def golden(tiny_artifact, tmp_path_factory):
    path = tmp_path_factory.mktemp("golden") / "golden.safetensors"
    argv, sys.argv = sys.argv, ["true_size", str(tiny_artifact), str(path), "--contexts", "5,70,ragged"]
    try:
        true_size.main()
    finally:
        sys.argv = argv
    return path


def test_every_row_count_meets_every_context(tiny_artifact, golden):
    manifest = Artifact.open(tiny_artifact).manifest
    _, steps = read_golden(golden, manifest)
    rows = sorted({entry.rows for entry in manifest.entry_points})
    assert [step.rows for step in steps] == [count for count in rows for _ in range(3)]
    for step in steps:
        inputs = step.segments[0].inputs
        assert len(set(inputs["slot_mapping"].tolist())) == step.rows, "every row writes a token of its own"
        assert (inputs["lengths"] == inputs["positions"] + 1).all()
    assert {5, 70} <= {int(step.segments[0].inputs["lengths"][0]) for step in steps}


def test_the_artifact_agrees(tiny_artifact, golden):
    assert compare(tiny_artifact, golden=golden).passed


def changed(golden, folder, **changes):
    """A copy of the golden file with the tensors whose names end so changed by functions."""
    tensors = dict(read_tensors(golden))
    for end, change in changes.items():
        for name in [name for name in tensors if name.endswith(end)]:
            tensors[name] = change(tensors[name])
    write_tensors(folder / "wrong.safetensors", tensors)
    return folder / "wrong.safetensors"


def other_format(elements):
    numbers = elements.view(ml_dtypes.float8_e4m3fn).astype(np.float32).clip(-240, 240)
    return numbers.astype(ml_dtypes.float8_e4m3fnuz).view(np.int8)


def one_row_one_slot_off(slots):
    return np.concatenate([slots[:1] ^ 1, slots[1:]])


@pytest.mark.parametrize(
    ("end", "change", "segment"),
    [
        ("results/logits", lambda logits: logits[:, ::-1].copy(), "logits"),
        # Every cached token lies one slot further on, so that other ones are selected: the step's result differs.
        ("initial/tokens", lambda tokens: np.roll(tokens, 1), "logits"),
        ("slot_mapping", one_row_one_slot_off, "indexer_cache"),
        ("latent_cache/elements", other_format, "latent_cache"),
        ("indexer_cache/scales", lambda scales: scales * 2, "indexer_cache"),
    ],
)
def test_a_wrong_golden_is_noticed(tiny_artifact, golden, tmp_path, end, change, segment):
    report = compare(tiny_artifact, golden=changed(golden, tmp_path, **{end: change}), bundle=tmp_path / "bundle")
    assert segment in {output.name.rsplit(".", 1)[-1] for output in report.outputs if not output.passed}


def test_contexts_that_do_not_fit(tiny_artifact, golden, tmp_path, monkeypatch):
    arguments = [str(tiny_artifact), str(tmp_path / "golden"), "--contexts", "100000"]
    monkeypatch.setattr(sys, "argv", ["true_size", *arguments])
    with pytest.raises(PredecodeError, match="a sequence of 100000 tokens takes 1563 pages; the artifact has 32"):
        true_size.main()
