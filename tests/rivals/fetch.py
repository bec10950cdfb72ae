"""Fetch the rivals' libraries for a machine without internet, and leave out what is not used.

    python -m tests.rivals.fetch FOLDER [--python 3.12]

The folder then holds two wheels and one archive, about 27 MB; hand it to ``python -m tests.rivals --libraries``.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.rivals.libraries import COMMON_LIBRARY, FLASH_MLA_LIBRARY, OPS_ARCHIVE

DEEP_GEMM = "sgl-deep-gemm==0.1.4.post1"
TVM_FFI = "apache-tvm-ffi==0.1.11"
SGLANG_KERNEL = "sglang-kernel==0.4.4"
"""The newest of these that load with torch 2.11."""
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_24_x86_64", "manylinux2014_x86_64")


def download(requirement: str, python: str, folder: Path) -> Path:
    """The wheel of ``requirement`` for Python ``python`` on x86-64 Linux, without what it depends on."""
    platforms = [argument for name in _PLATFORMS for argument in ("--platform", name)]
    before = set(folder.glob("*.whl"))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    target = ["--implementation", "cp", "--python-version", python, "--dest", str(folder)]
    subprocess.run([*command, *platforms, *target, requirement], check=True)
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def trim(wheel: Path, output: Path) -> None:
    """Write to ``output`` only the libraries of sglang-kernel's ``wheel`` that are used, and what it says of itself."""
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as kept:
        metadata = [name for name in source.namelist() if name.endswith(".dist-info/METADATA")]
        for name in (FLASH_MLA_LIBRARY, COMMON_LIBRARY, *metadata):
            kept.writestr(name, source.read(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--python", default="3.12", help="the other machine's")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        for requirement in (DEEP_GEMM, TVM_FFI):
            shutil.copy(download(requirement, options.python, Path(temporary)), options.folder)
        trim(download(SGLANG_KERNEL, options.python, Path(temporary)), options.folder / OPS_ARCHIVE)
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    print(f"{options.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
