"""The small artifacts: compiled once per test session, copied for tests that change them."""

import shutil
from pathlib import Path

import pytest

from tests.pipelines import small_artifact


@pytest.fixture(scope="session")
def step_module() -> bytes:
    return small_artifact.step_module()


@pytest.fixture(scope="session")
def step_original(tmp_path_factory, step_module) -> Path:
    return small_artifact.write_step_artifact(tmp_path_factory.mktemp("step") / "artifact", step_module)


@pytest.fixture(scope="session")
def layer_original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("layer") / "artifact"
    return small_artifact.write_layer_artifact(folder, small_artifact.layer_module())


@pytest.fixture
def step_artifact(step_original, tmp_path) -> Path:
    return Path(shutil.copytree(step_original, tmp_path / "step"))


@pytest.fixture
def layer_artifact(layer_original, tmp_path) -> Path:
    return Path(shutil.copytree(layer_original, tmp_path / "layer"))
