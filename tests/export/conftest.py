"""Artifacts of the small models, and kernels that are wrong on purpose."""

import shutil
from pathlib import Path

import pytest

from predecode.custom_kernels import toolchain
from predecode.export.exporter import export_artifact
from predecode.export.options import ExportOptions


def export_tiny(folder: Path, **options) -> Path:
    """Export with small defaults; returns the artifact's folder."""
    defaults = {"model": "tiny", "target": "cpu", "rows": (1, 4), "max_context": 256, "pages": 32}
    export_artifact(ExportOptions(**(defaults | options)), folder, lambda what, done, total: None)
    return folder


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("tiny") / "artifact")


# The index map of `layouts.h` with rows and columns of a tile exchanged.
FLIPPED_TILES = (
    "row % TILE * TILE + column % TILE;",
    "column % TILE * TILE + row % TILE;",
)


def wrong_header(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the device headers in which ``old`` of layouts.h is ``new``."""
    headers = tmp_path / "device"
    shutil.copytree(toolchain.DEVICE_HEADERS, headers)
    text = (headers / "layouts.h").read_text()
    assert text.count(old) >= 1
    (headers / "layouts.h").write_text(text.replace(old, new))
    return headers
