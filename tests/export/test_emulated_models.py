"""The small models for gfx942 and gfx950, whole, on the emulated device in strict mode, against their goldens."""

from dataclasses import replace

import pytest

from predecode.custom_kernels import toolchain
from predecode.custom_kernels.formats import E4M3FN
from predecode.custom_kernels.targets import GFX942, TARGETS
from predecode.pipelines import compare
from predecode.pipelines.artifact import Artifact
from tests.export.conftest import FLIPPED_TILES, export_tiny, wrong_header


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
@pytest.mark.parametrize("model", ["tiny", "tiny-deepseek"])
def test_the_golden_of(model, target, tmp_path):
    folder = export_tiny(tmp_path / "artifact", model=model, target=target, rows=(4,))
    report = compare(folder, "emulated", bundle=tmp_path / "bundle", strict=True)
    assert report.passed, report.first_mismatch


def test_each_half_of_a_layer_is_far_within_tolerance(tmp_path):
    """Given the golden's own inputs, half by half, nothing adds up: a tenth of the 1 - cosine that is asked for.

    A group's scale that lands on the next float rounds all its FP8 codes anew: 2 % of it, cosine 0.9997.
    """
    folder = export_tiny(tmp_path / "artifact", model="tiny-deepseek", target="gfx950", rows=(4,), reduce="external")
    report = compare(folder, "emulated", bundle=tmp_path / "bundle", strict=True)
    assert report.passed, report.first_mismatch
    assert min(output.cosine for output in report.outputs) > 0.9995


def failing_report(tmp_path, target):
    folder = export_tiny(tmp_path / "artifact", target=target, layers=(1,), rows=(4,))
    return compare(folder, "emulated", bundle=tmp_path / "bundle", strict=True)


def test_kernels_with_a_swapped_tile_order_are_caught(tmp_path, monkeypatch):
    monkeypatch.setattr(toolchain, "DEVICE_HEADERS", wrong_header(tmp_path, *FLIPPED_TILES))
    report = failing_report(tmp_path, "gfx950")
    assert not report.passed
    assert "layer_1" in report.first_mismatch


def test_the_other_chips_fp8_format_is_caught(tmp_path, monkeypatch):
    """Weights, caches and goldens in E4M3FN on a chip whose instructions read E4M3FNUZ."""
    monkeypatch.setitem(TARGETS, "gfx942", replace(GFX942, element_format=E4M3FN))
    assert not failing_report(tmp_path, "gfx942").passed


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
def test_few_rows_of_one_layer(target, tmp_path):
    """Row counts for which the compiler forms other matrix instructions."""
    folder = export_tiny(tmp_path / "artifact", target=target, layers=(1,), rows=(2,))
    report = compare(folder, "emulated", bundle=tmp_path / "bundle")
    assert report.passed, report.first_mismatch


@pytest.mark.parametrize(("target", "layers"), [("gfx942", (2, 3)), ("gfx950", (0,))])
def test_fused_layers(target, layers, tmp_path):
    """A dispatch per layer, of a resident grid: with a selection handed on, and a dense layer."""
    folder = export_tiny(tmp_path / "artifact", target=target, layers=layers, rows=(4,), fuse="layer")
    manifest = Artifact.open(folder).manifest
    (entry,) = manifest.entry_points
    assert not any(kernel.resources.register_spills for kernel in manifest.kernels)
    assert [dispatch.kind for dispatch in entry.audit.dispatches] == ["kernel"] * len(layers)
    assert {f"layers.{layer}" for layer in layers} <= {
        binding.name for dispatch in entry.audit.dispatches for binding in dispatch.bindings
    }
    report = compare(folder, "emulated", bundle=tmp_path / "bundle", strict=True)
    assert report.passed, report.first_mismatch
