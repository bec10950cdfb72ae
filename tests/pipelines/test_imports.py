"""Importing the runtime must bring in neither torch nor a compiler."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "iree.compiler", "iree.turbine", "tinygrad", "msgpack", "safetensors", "predecode.export")


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import predecode.pipelines", "from predecode.pipelines import command_line, timeline, session"],
)
def test_runtime_stays_light(statement):
    loaded = loaded_after(statement)
    assert "iree.runtime" in loaded
    assert not loaded & set(HEAVY)


def test_the_check_sees_a_heavy_module():
    assert "safetensors" in loaded_after("import predecode.pipelines, safetensors")
