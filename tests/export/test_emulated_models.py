"""The small models for gfx942 and gfx950, whole, on the emulated device in strict mode, against their goldens."""

import pytest

from predecode.pipelines import compare
from tests.export.conftest import export_tiny


@pytest.mark.parametrize("target", ["gfx942", "gfx950"])
@pytest.mark.parametrize("model", ["tiny", "tiny-deepseek"])
def test_the_golden_of(model, target, tmp_path):
    folder = export_tiny(tmp_path / "artifact", model=model, target=target, rows=(4,))
    report = compare(folder, "emulated", bundle=tmp_path / "bundle", strict=True)
    assert report.passed, report.first_mismatch
