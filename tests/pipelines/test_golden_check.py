"""Comparing with a golden: passing, failing, and what a failure leaves behind."""

import json
from dataclasses import replace

import numpy as np
import pytest

from predecode.pipelines import compare
from predecode.pipelines.artifact import Artifact
from predecode.pipelines.golden import GoldenError, read_golden, write_golden
from predecode.pipelines.tensor_file import read_tensors, write_tensors
from tests.pipelines.small_artifact import CACHE, PAGE_BYTES, WIDTH, golden_steps


@pytest.fixture
def rewrite(step_artifact, tmp_path):
    """Writes the artifact's golden anew with some tensors changed; gives the new file's path."""

    def write(changes: dict) -> str:
        tensors = dict(read_tensors(step_artifact / "golden.safetensors"))
        for name, change in changes.items():
            value = change(tensors[name].copy()) if callable(change) else change
            tensors.pop(name) if value is None else tensors.update({name: value})
        write_tensors(tmp_path / "changed.safetensors", tensors)
        return str(tmp_path / "changed.safetensors")

    return write


def add(where, amount):
    def change(array):
        array[where] += amount
        return array

    return change


def test_passes(step_artifact):
    report = compare(step_artifact)
    assert (report.passed, report.steps, report.bundle, report.first_mismatch) == (True, 3, None, None)
    assert [output.name for output in report.outputs] == ["step.logits", f"step.{CACHE}"]
    assert not (step_artifact.parent / "step.mismatch").exists()


def test_a_wrong_logit_is_found_in_any_row_and_step(step_artifact, rewrite):
    golden = rewrite({"steps/1/step/results/logits": add((1, 9), 0.5)})
    report = compare(step_artifact, golden=golden)
    assert not report.passed
    assert [output.passed for output in report.outputs] == [False, True]
    assert report.outputs[0].max_abs == pytest.approx(0.5, rel=1e-5)
    assert report.outputs[0].cosine < 1 - 2e-6
    assert "step.logits in step 1" in report.first_mismatch
    assert "row 1, dim 9 (byte 100)" in report.first_mismatch


def test_a_wrong_cache_byte_is_found(step_artifact, rewrite):
    """In step 2, the rows write token 0 of the second pages of their sequences."""
    golden = rewrite({f"steps/2/step/written/{CACHE}/elements": add((1, 2), 4)})
    report = compare(step_artifact, golden=golden)
    assert [output.passed for output in report.outputs] == [True, False]
    assert f"page 3, token 0, dim 2 (byte {3 * PAGE_BYTES + 2})" in report.first_mismatch


def test_a_slot_that_is_one_off_is_noticed(step_artifact, rewrite):
    """The golden's row is expected at the next slot, and what is at its own one was not to be written."""
    golden = rewrite({"steps/1/step/inputs/slot_mapping": add(0, -1)})
    report = compare(step_artifact, golden=golden)
    assert not report.passed and "step 1" in report.first_mismatch


def test_rows_of_slot_minus_one_are_not_compared(step_artifact, rewrite):
    assert compare(step_artifact, golden=rewrite({f"steps/0/step/written/{CACHE}/elements": add((2, 0), 1)})).passed


def test_other_initial_caches_are_noticed(step_artifact, rewrite):
    golden = rewrite({f"initial/{CACHE}/elements": add((0, 5), 1)})
    assert not compare(step_artifact, golden=golden).passed


def test_the_bundle_tells_all(step_artifact, rewrite, tmp_path):
    golden = rewrite({"steps/1/step/results/logits": add((1, 9), 0.5)})
    report = compare(step_artifact, golden=golden)
    bundle = step_artifact.parent / "step.mismatch"
    assert report.bundle == str(bundle)
    inputs, given, expected = (read_tensors(bundle / f"{name}.safetensors") for name in ("inputs", "given", "expected"))
    assert sorted(inputs) == sorted(["tokens", "positions", "lengths", "slot_mapping", "block_table", CACHE])
    assert expected["logits"][1, 9] - given["logits"][1, 9] == pytest.approx(0.5, rel=1e-5)
    original = read_tensors(step_artifact / "golden.safetensors")
    # The caches before step 1 are those after step 0.
    before = original[f"initial/{CACHE}/elements"].copy()
    slots = original["steps/0/step/inputs/slot_mapping"][:2]
    before[slots] = original[f"steps/0/step/written/{CACHE}/elements"][:2]
    np.testing.assert_array_equal(inputs[CACHE].reshape(-1, WIDTH), before)
    assert expected[f"written/{CACHE}/elements"].shape == (3, WIDTH)
    summary = json.loads((bundle / "mismatch.json").read_text())
    assert summary["command"] == f"predecode compare {step_artifact} --device local-task --golden {golden}"
    assert summary["mismatches"][0]["first_bad"]["coordinates"] == {"row": 1, "dim": 9}
    assert (summary["step"], summary["entry_point"]) == (1, "step_rows3")


def test_a_bundle_replaces_only_a_bundle(step_artifact, rewrite, tmp_path):
    golden = rewrite({"steps/1/step/results/logits": add((1, 9), 0.5)})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    for _ in range(2):
        compare(step_artifact, golden=golden, bundle=tmp_path / "mine2")
    compare(step_artifact, golden=golden, bundle=tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep"


BAD_GOLDENS = [
    ({"steps/1/step/inputs/tokens": None}, "has no steps/1/step/inputs/tokens"),
    (
        {"steps/1/step/inputs/tokens": np.zeros(3, np.int32)},
        r"tokens is int32\[3\], the artifact has int64\[3\]",
    ),
    ({"steps/0/step/results/logits": np.zeros((3, 9), np.float32)}, r"logits is float32\[3, 9\]"),
    ({f"steps/0/step/written/{CACHE}/elements": np.zeros((2, WIDTH), np.int8)}, r"the artifact has int8\[3, 16\]"),
    ({f"initial/{CACHE}/elements": np.zeros((9, 15), np.int8)}, r"the artifact has int8\[any, 16\]"),
    ({f"initial/{CACHE}/elements": np.zeros((9, WIDTH), np.int8)}, "names rows that a cache has not"),
]


@pytest.mark.parametrize(("changes", "message"), BAD_GOLDENS, ids=[message for _, message in BAD_GOLDENS])
def test_goldens_that_do_not_fit_are_refused(step_artifact, rewrite, changes, message):
    with pytest.raises(GoldenError, match=message):
        compare(step_artifact, golden=rewrite(changes))


def test_a_golden_without_results_is_refused(step_artifact, rewrite):
    golden = rewrite({"steps/2/step/results/logits": None})
    with pytest.raises(GoldenError, match="nothing to compare step with"):
        compare(step_artifact, golden=golden)


def test_a_golden_without_steps_is_refused(step_artifact, tmp_path):
    write_golden(tmp_path / "empty.safetensors", golden_steps(1)[0], [])
    with pytest.raises(GoldenError, match="holds no step"):
        compare(step_artifact, golden=tmp_path / "empty.safetensors")


def test_a_golden_of_other_row_counts_is_refused(step_artifact, tmp_path):
    manifest = Artifact.open(step_artifact).manifest
    initial, steps = read_golden(step_artifact / "golden.safetensors", manifest)
    segment = steps[0].segments[0]
    cut = replace(segment, inputs={name: array[:2] for name, array in segment.inputs.items()})
    write_golden(tmp_path / "two.safetensors", initial, [replace(steps[0], rows=2, segments=(cut,))])
    with pytest.raises(GoldenError, match=r"step 0 has 2 rows, the artifact has steps of \[1, 3\]"):
        compare(step_artifact, golden=tmp_path / "two.safetensors")


def test_the_report_is_json(step_artifact):
    document = json.loads(compare(step_artifact).to_json())
    assert document["passed"] is True
    assert {"name", "max_abs", "max_rel", "cosine", "tolerance", "passed"} <= set(document["outputs"][0])
