"""Objects of the kernels' compiler, loaded into this process."""

import ctypes
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path


def load_object(code: Path, *flags: str) -> ctypes.CDLL:
    """The x86-64 object ``code``, linked with nothing else; ``flags`` go to the linker."""
    linker = str(files("iree.compiler") / "_mlir_libs" / "iree-lld")
    with tempfile.TemporaryDirectory() as folder:
        library = str(Path(folder) / "library.so")
        command = [linker, "-flavor", "gnu", "-shared", *flags, str(code), "-o", library]
        subprocess.run(command, check=True, capture_output=True)
        return ctypes.CDLL(library)
