"""Whole exports of the small models on the CPU: compared, reproducible, and wrong when a kernel is wrong."""

import json
import resource
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from predecode.custom_kernels import toolchain
from predecode.export.exporter import example_arguments, export_artifact
from predecode.export.options import ExportOptions
from predecode.pipelines import DecodeSession, compare
from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.errors import PredecodeError
from tests.export.conftest import FLIPPED_TILES, export_tiny, wrong_header

pytestmark = pytest.mark.xdist_group("exporter")


def test_the_compiled_model_equals_its_golden(tiny_artifact):
    report = compare(tiny_artifact, bundle=tiny_artifact.parent / "bundle")
    assert report.passed, report.first_mismatch
    assert {o.name for o in report.outputs} >= {"step.logits", "step.layers.3.indexer_cache"}


def test_two_exports_are_the_same_bytes(tiny_artifact, tmp_path):
    again = export_tiny(tmp_path / "elsewhere" / "other name")
    names = sorted(path.name for path in tiny_artifact.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    for name in names:
        assert (again / name).read_bytes() == (tiny_artifact / name).read_bytes(), name


def test_a_pool_takes_no_memory_while_it_is_traced():
    def resident_bytes():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    pool = SimpleNamespace(shape=(2**20, 2**12), dtype=torch.int8)
    before = resident_bytes()
    (cache,) = example_arguments(SimpleNamespace(arguments=lambda rows: [pool]), 1)
    assert cache.shape == pool.shape and resident_bytes() - before < cache.nbytes // 4


def test_the_audit_of_the_manifest(tiny_artifact):
    manifest = read_manifest(tiny_artifact)
    for entry in manifest.entry_points:
        caches = sorted(spec.name for spec in entry.arguments if spec.role == "cache")
        assert (entry.audit.copies, entry.audit.fills) == (0, 0)
        assert sorted(entry.audit.in_place) == caches
        assert [e.reason for e in entry.audit.exempted] == ["the embedding of the step's tokens is a look-up"]
        kernels = {d.name for d in entry.audit.dispatches if d.kind == "kernel"}
        assert {"sparse_mla", "paged_mqa_logits", "topk_slots", "moe_down"} <= kernels
    text = (tiny_artifact / "manifest.json").read_text()
    assert str(tiny_artifact.parent) not in text
    assert json.loads(text)["tools"].keys() >= {"clang", "iree-base-compiler", "torch"}


def test_what_ptxas_says_of_the_kernels(tmp_path):
    first, again = (export_tiny(tmp_path / name, target="sm_90", layers=(0,), rows=(1,)) for name in ("first", "again"))
    manifest = read_manifest(first)
    assert manifest.tools["ptxas"] and len(manifest.kernels) > 10
    for kernel in manifest.kernels:
        assert 16 <= kernel.resources.vector_registers <= 255 and kernel.resources.register_spills == 0, kernel.symbol
        assert kernel.occupancy.workgroups_per_compute_unit >= 1
    assert (first / "manifest.json").read_bytes() == (again / "manifest.json").read_bytes()


@pytest.mark.parametrize("model", ["tiny-deepseek", "tiny"])
def test_segments_of_a_tensor_parallel_rank(model, tmp_path):
    folder = export_tiny(tmp_path / "rank", model=model, rows=(4,), tensor_parallel=2, rank=1)
    report = compare(folder, bundle=tmp_path / "bundle")
    assert report.passed, report.first_mismatch
    assert any(output.name.endswith("hidden_partial") for output in report.outputs)


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("tile order flipped", *FLIPPED_TILES),
        ("scale axis swapped", "return group * rows + row;", "return row * 2 + group;"),
        ("scales of a page shifted by one token", "+ 4 * token;", "+ 4 * ((token + 1) % PAGE_TOKENS);"),
        ("off by one slot", "return int64(slot) * row_bytes;", "return (int64(slot) + 1) * row_bytes;"),
    ],
)
def test_a_wrong_layout_in_the_kernels_does_not_pass(what, old, new, tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "DEVICE_HEADERS", wrong_header(tmp_path, old, new))
    folder = export_tiny(tmp_path / "artifact", layers=(1,), rows=(4,))
    report = compare(folder, bundle=tmp_path / "bundle")
    assert not report.passed, what
    assert (tmp_path / "bundle").is_dir()


def test_a_session_decodes_and_pads(tiny_artifact):
    """Three rows go through the four-row entry point; the row alone gives the same logits."""
    inputs = {
        "tokens": np.array([5, 6, 7]),
        "positions": np.array([0, 0, 0]),
        "lengths": np.array([1, 1, 1], np.int32),
        "slot_mapping": np.array([64, 128, 192]),
        "block_table": np.array([[1, 0, 0, 0], [2, 0, 0, 0], [3, 0, 0, 0]], np.int32),
    }
    together = DecodeSession.open(tiny_artifact).step(**inputs)["logits"]
    alone = DecodeSession.open(tiny_artifact).step(**{name: array[1:2] for name, array in inputs.items()})["logits"]
    assert together.shape == (3, 512)
    np.testing.assert_array_equal(together[1], alone[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nonsense"}, "'nonsense' is neither a preset"),
        ({"target": "gfx90a"}, "target 'gfx90a' is unknown; choose one of cpu, gfx942, gfx950, sm_90"),
        ({"rows": ()}, "expected distinct row counts"),
        ({"rows": (4, 4)}, "expected distinct row counts"),
        ({"rows": (0,)}, "expected distinct row counts"),
        ({"layers": (99,)}, "99"),
        ({"layers": ()}, "expected layer indices"),
        ({"max_context": 0}, "max context 0"),
        ({"max_context": 5000}, "max context 5000 is more than the model's 1024 positions"),
        ({"pages": 0}, "pages 0"),
        ({"tensor_parallel": 3}, "tensor parallel size 3 does not divide"),
        ({"tensor_parallel": 2, "rank": 2}, "rank 2: expected 0 to 1"),
        ({"reduce": "sometimes"}, "reduce 'sometimes'"),
        ({"reduce": "peers", "tensor_parallel": 2}, "reduce 'peers': cpu has no kernel"),
        ({"reduce": "peers", "target": "gfx942"}, "reduce 'peers': one rank has nothing to add up"),
        ({"schedule": "parallel"}, "schedule 'parallel': expected one of serial, overlap"),
        ({"fuse": "all"}, "fuse 'all': expected one of none, chain, layer"),
        ({"fuse": "layer"}, "fuse 'layer': cpu runs each op as a function of its own"),
        ({"fuse": "chain", "schedule": "serial", "target": "sm_90"}, "fused calls of a level run side by side"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(options, message, tmp_path):
    defaults = {"model": "tiny", "target": "cpu", "rows": (1,), "max_context": 256, "pages": 32}
    with pytest.raises(PredecodeError, match=message) as caught:
        export_artifact(ExportOptions(**(defaults | options)), tmp_path / "out", lambda *_: None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
