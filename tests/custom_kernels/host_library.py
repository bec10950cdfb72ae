"""Objects of the kernels' compiler, and device headers for the host, loaded into this process."""

import ctypes
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from predecode.custom_kernels.toolchain import DEVICE_HEADERS, Toolchain


def load_object(code: Path, *flags: str) -> ctypes.CDLL:
    """The x86-64 object ``code``, linked with nothing else; ``flags`` go to the linker."""
    linker = str(files("iree.compiler") / "_mlir_libs" / "iree-lld")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "library.so")
        command = [linker, "-flavor", "gnu", "-shared", *flags, str(code), "-o", library]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(library)


def load_source(text: str, folder: Path) -> ctypes.CDLL:
    """C++ ``text``, which may include device headers, compiled in ``folder`` for this machine."""
    source, code = folder / "source.cpp", folder / "source.o"
    source.write_text(text)
    command = [*Toolchain().clang, "-target", "x86_64-none-elf", "-std=c++20", "-O1", "-ffreestanding", "-fPIC", "-c"]
    subprocess.run([*command, "-I", str(DEVICE_HEADERS), str(source), "-o", str(code)], check=True)
    return load_object(code)
