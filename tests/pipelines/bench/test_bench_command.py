"""`predecode bench`: its output and, for every mistake, one line and exit code 2."""

import json
import shutil
from types import SimpleNamespace

import pytest

from predecode.pipelines import command_line
from predecode.pipelines.bench import BenchReport, streaming
from tests.pipelines.test_command_line import edit_manifest


@pytest.fixture
def artifact(two_layers, tmp_path):
    return shutil.copytree(two_layers, tmp_path / "artifact")


def call(capfd, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        command_line.main(["bench", *map(str, words)])
    streams = capfd.readouterr()
    return caught.value.code, streams.out, streams.err


def test_table_json_and_page(artifact, capfd, tmp_path):
    page = tmp_path / "page.html"
    code, output, errors = call(
        capfd, artifact, "--rows", 1, "--context", "100", "--layers", 2, "--steps", 1, "--json", "--html", page
    )
    assert (code, errors) == (0, "")
    report = BenchReport.from_json(output)
    assert [(run.rows, run.context, run.layers) for run in report.runs] == [(1, "100", 2)]
    assert json.loads(output)["runs"][0]["totals"]["layer_seconds"] == report.runs[0].layer
    assert page.read_text().startswith("<!doctype html>")


def make_gfx942(artifact):
    edit_manifest(artifact, "gfx942", "target", "name")
    edit_manifest(artifact, "hip", "target", "device")


MISTAKES = [
    (("--rows", "2"), "--rows 2: the artifact has steps of 1, 4 rows"),
    (("--rows", "four"), "--rows 'four': expected whole numbers"),
    (("--context", "257"), "--context 257 is more than the artifact's 256 tokens"),
    (("--context", "100,long"), "--context 'long': expected a number of tokens"),
    (("--rows", "4", "--context", "256", "--layers", "3"), "--layers 3: the artifact chains 2 layers"),
    (("--steps", "0"), "--steps 0: expected 1 or more"),
    (("--seconds", "-1"), "--seconds -1.0: expected more than 0"),
    (("--device", "cuda"), "which runs on local-task or local-sync, not on 'cuda'"),
    (("--device", "emulated"), "the artifact was compiled for cpu, only gfx942 and gfx950 are emulated"),
    (("--device",), "requires an argument"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_mistakes_are_one_line(artifact, capfd, words, message):
    code, output, errors = call(capfd, artifact, *words)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert errors.startswith("predecode: ") and message in errors


ARTIFACTS = [
    (lambda a: edit_manifest(a, [3, 3], "model", "layers"), (), "some of them twice with the same weights"),
    (lambda a: edit_manifest(a, None, "bandwidth_probe"), (), "has no bandwidth probe"),
    (make_gfx942, ("--device", "emulated"), "the time of an emulated device means nothing"),
    (lambda a: edit_manifest(a, 3, "geometry", "pages"), ("--rows", 4), "4 rows take 4 pages or more"),
    (lambda a: edit_manifest(a, "nothing.vmfb", "bandwidth_probe", "module"), (), "not listed under files"),
    (lambda a: (a / "bandwidth.vmfb").unlink(), (), "bandwidth.vmfb is missing"),
]


@pytest.mark.parametrize(("change", "words", "message"), ARTIFACTS, ids=[message for *_, message in ARTIFACTS])
def test_artifacts_that_cannot_be_timed_are_one_line(artifact, capfd, change, words, message):
    change(artifact)
    code, output, errors = call(capfd, artifact, *words)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert message in errors


def test_memory_that_does_not_suffice_is_one_line(artifact, capfd, monkeypatch):
    def full(device, words):
        raise RuntimeError("x.c:1: RESOURCE_EXHAUSTED; allocation failed; while invoking")

    monkeypatch.setattr(streaming, "rt", SimpleNamespace(**vars(streaming.rt) | {"asdevicearray": full}))
    code, output, errors = call(capfd, artifact, "--rows", 1)
    assert (code, output, errors.count("\n")) == (2, "", 1)
    assert "do not fit beside the model" in errors and "RESOURCE_EXHAUSTED" in errors
