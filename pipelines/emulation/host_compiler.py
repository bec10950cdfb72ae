"""Builds C sources into shared objects for this machine's processor, kept in the user's cache by content."""

import functools
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from predecode.pipelines.errors import PredecodeError

COMPILE_FLAGS = (
    "-std=gnu11",
    "-O2",
    "-march=native",
    "-fPIC",
    "-fvisibility=hidden",
    "-w",
    # Machine code has no contraction of its own, wraps integers and reads registers under any type.
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fwrapv",
    "-fno-strict-aliasing",
    "-pthread",
    "-D__GLIBC_MINOR__=28",  # The oldest C library that the IREE runtime's own wheels run on.
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


def build_shared_object(
    key: str, name: str, sources: Callable[[], dict[str, str]], include: Path, objects: Sequence[Path] = ()
) -> Path:
    """Compiles ``sources()`` (file name -> C text) into file ``name`` of cache entry ``key``: its path.

    ``objects`` (see ``build_object``) are linked with them. An existing entry is returned as it is. Raises
    PredecodeError with the compiler's first error line.
    """

    def build(folder: Path, target: Path) -> None:
        files = sources()
        for file_name, text in files.items():
            Path(folder, file_name).write_text(text)
        units = [Path(folder, file_name) for file_name in files if file_name.endswith(".c")]
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            compiled = list(pool.map(lambda unit: _compile(unit, unit.with_suffix(".o"), include), units))
        _link(target, [*compiled, *objects])

    return _cached(key, name, build)


def build_object(unit: Path, key: str) -> Path:
    """Compiles the C file ``unit``, which includes headers of its own folder, into cache entry ``key``: its path."""
    return _cached(key, f"{unit.stem}.o", lambda folder, target: _compile(unit, target, unit.parent))


def _cached(key: str, name: str, build: Callable[[Path, Path], object]) -> Path:
    """File ``name`` of cache entry ``key``, made by ``build(scratch folder, target)`` if it is not there."""
    target = cache_directory() / key / name
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        built = Path(folder, name)
        build(Path(folder), built)
        os.replace(built, target)  # Atomic: another process sees nothing or the whole file.
    return target


def _compile(unit: Path, target: Path, include: Path) -> Path:
    headers = [f"-isystem{folder}" for folder in _header_folders()]
    arguments = [f"--target={platform.machine()}-linux-gnu", *COMPILE_FLAGS, f"-I{include}", *headers]
    _run("clang", *arguments, "-c", "-o", str(target), str(unit))
    return target


def _link(target: Path, objects: list[Path]) -> None:
    """The C library and its mathematics are those of the process that loads the result."""
    _run("ld.lld", "-shared", "-o", str(target), *map(str, objects))


def _header_folders() -> list[Path]:
    """The compiler's and the C library's headers as the wheel brings them: the machine need not have any."""
    library = _zig().parent / "lib"
    machine = platform.machine()
    family = "x86" if machine == "x86_64" else machine
    names = (f"{family}-linux-gnu", "generic-glibc", f"{family}-linux-any", "any-linux-any")
    return [library / "include", *(library / "libc" / "include" / name for name in names)]


@functools.cache
def _zig() -> Path:
    """The tool itself: clang and the linker are called as they are, without its own build cache."""
    import ziglang

    return Path(ziglang.__file__).parent / "zig"


def _run(*command: str) -> None:
    result = subprocess.run([str(_zig()), *command], capture_output=True, text=True)
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
