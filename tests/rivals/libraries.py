"""The optional libraries, installed or from a folder that `tests.rivals.fetch` made."""

import importlib
import importlib.metadata
import sys
import tempfile
import zipfile
from pathlib import Path
from types import ModuleType

import torch

from tests.rivals.report import RivalError

OPS_ARCHIVE = "sgl_kernel_libraries.zip"
FLASH_MLA_LIBRARY = "sgl_kernel/flashmla_ops.abi3.so"
COMMON_LIBRARY = "sgl_kernel/sm90/common_ops.abi3.so"


def versions_in(folder: Path) -> dict[str, str]:
    """Versions of the packages in ``folder``, by name."""
    found = importlib.metadata.distributions(path=[str(file) for file in sorted(folder.iterdir())])
    return {distribution.name: distribution.version for distribution in found}


class Libraries:
    """``folder`` holds wheels, and the libraries of sglang-kernel that are used; None takes what is installed."""

    def __init__(self, folder: Path | None):
        self._unpacked: Path | None = None
        if folder is None:
            return
        packages = sorted(folder.glob("*.whl")) + sorted(folder.glob(OPS_ARCHIVE))
        if not packages:
            raise RivalError(f"{folder} holds no wheel and no {OPS_ARCHIVE}; make it with python -m tests.rivals.fetch")
        self._unpacked = Path(tempfile.mkdtemp(prefix="rivals-"))
        for package in packages:
            with zipfile.ZipFile(package) as archive:
                archive.extractall(self._unpacked)
        sys.path.insert(0, str(self._unpacked))

    def deep_gemm(self) -> ModuleType:
        """The module `deep_gemm`."""
        return _import("deep_gemm", "sgl-deep-gemm")

    def load_ops(self, library: str) -> None:
        """Register the ops of ``library`` (`FLASH_MLA_LIBRARY` or `COMMON_LIBRARY`) as ``torch.ops.sgl_kernel``."""
        path = self._unpacked / library if self._unpacked else None
        if path is None or not path.is_file():
            _import("sgl_kernel", "sglang-kernel")
            return
        try:
            torch.ops.load_library(str(path))
        except OSError as error:
            raise RivalError(f"{library} cannot be loaded: {first_line(error)}") from None


def first_line(error: BaseException) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def _import(name: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    # A library built for another torch fails in ways of its own.
    except Exception as error:
        raise RivalError(f"{package} cannot be imported ({first_line(error)})") from None
