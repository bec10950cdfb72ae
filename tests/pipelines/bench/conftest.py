"""Two layers of the tiny model on the CPU, and one bench of them."""

from pathlib import Path

import pytest

from predecode.pipelines.bench import BenchReport, bench
from tests.export.conftest import export_tiny

LAYERS = (2, 3)


@pytest.fixture(scope="session")
def two_layers(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bench") / "artifact"
    return export_tiny(folder, layers=LAYERS, rows=(1, 4), pages=16)


@pytest.fixture(scope="session")
def report(two_layers) -> BenchReport:
    return bench(two_layers, "local-task", rows=[4], contexts=["200", "ragged"], steps=2)
