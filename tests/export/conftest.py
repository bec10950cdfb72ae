"""Artifacts of the small models, exported once per test session."""

from pathlib import Path

import pytest

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
