"""An artifact whose parameters are made elsewhere is the one that export makes."""

import subprocess
import sys
from pathlib import Path

from tests.export.conftest import export_tiny

OPTIONS = ["--target", "cpu", "--layers", "1", "--rows", "1", "--max-context", "256", "--pages", "32"]


def carried_artifact(*arguments):
    command = [sys.executable, "-m", "tests.carried_artifact", *arguments]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, capture_output=True)


def test_filling_completes_an_export_to_the_same_bytes(tmp_path):
    whole, carried = export_tiny(tmp_path / "whole", layers=(1,), rows=(1,)), tmp_path / "carried"
    carried_artifact("export", "tiny", *OPTIONS, "-o", str(carried))
    assert not (carried / "parameters.irpa").stat().st_size
    carried_artifact("fill", str(carried))
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in carried.iterdir())
    assert [name for name in names if (whole / name).read_bytes() != (carried / name).read_bytes()] == []
