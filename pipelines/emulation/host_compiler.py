"""Builds C sources into shared objects for this machine's processor, kept in the user's cache by content."""

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from predecode.pipelines.errors import PredecodeError

COMPILE_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-march=native",
    "-fPIC",
    "-fvisibility=hidden",
    # Machine code has no contraction of its own, wraps integers and reads registers under any type.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-fno-sanitize=undefined",
    "-pthread",
    "-Wall",
    "-Wno-unused-function",
    "-Wno-unused-variable",
)


def cache_directory() -> Path:
    """The folder that holds what the emulated device has built; safe to delete at any time."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "predecode" / "emulation"


def content_key(*parts: str | bytes) -> str:
    """A key that changes when a part, the compiler, its flags or this machine's processor changes."""
    digest = hashlib.sha256()
    for part in (_compiler_version(), _processor(), *COMPILE_FLAGS, *parts):
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:32]


def build_shared_object(key: str, name: str, sources: Callable[[], dict[str, str]], include: Path) -> Path:
    """Compiles ``sources()`` (file name -> C text) into file ``name`` of cache entry ``key``: its path.

    An existing entry is returned as it is. Raises PredecodeError with the compiler's first error line.
    """
    target = cache_directory() / key / name
    if target.exists():
        return target
    files = sources()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        for file_name, text in files.items():
            Path(folder, file_name).write_text(text)
        units = [Path(folder, file_name) for file_name in files if file_name.endswith(".c")]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            objects = list(pool.map(lambda unit: _compile(unit, include), units))
        built = Path(folder, name)
        _run_compiler("-shared", "-o", str(built), *map(str, objects), "-lm")
        os.replace(built, target)  # Atomic: another process sees nothing or the whole file.
    return target


def _compile(unit: Path, include: Path) -> Path:
    target = unit.with_suffix(".o")
    _run_compiler("-c", f"-I{include}", "-o", str(target), str(unit))
    return target


def _run_compiler(*arguments: str) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", *COMPILE_FLAGS, *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["no message"]
        line = next((line for line in lines if "error" in line), lines[-1])
        raise PredecodeError(f"the C compiler (ziglang) could not build for this machine: {line}")


def _compiler_version() -> str:
    from importlib.metadata import version

    return version("ziglang")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "unknown"
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
