"""Goldens at chosen contexts, made apart from the export."""

import sys

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


def test_a_wrong_golden_is_noticed(tiny_artifact, golden, tmp_path):
    tensors = dict(read_tensors(golden))
    name = next(name for name in tensors if name.startswith("steps/0/") and name.endswith("results/logits"))
    tensors[name] = tensors[name][:, ::-1].copy()
    wrong = tmp_path / "wrong.safetensors"
    write_tensors(wrong, tensors)
    assert not compare(tiny_artifact, golden=wrong, bundle=tmp_path / "bundle").passed


def test_contexts_that_do_not_fit(tiny_artifact, golden, tmp_path, monkeypatch):
    arguments = [str(tiny_artifact), str(tmp_path / "golden"), "--contexts", "100000"]
    monkeypatch.setattr(sys, "argv", ["true_size", *arguments])
    with pytest.raises(PredecodeError, match="2 sequences of 100000 tokens take 3126 pages"):
        true_size.main()
