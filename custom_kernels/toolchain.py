""".hip and .cpp sources -> code objects, kept in a content-addressed cache.

HIP sources become an HSACO on AMD targets and PTX text on NVIDIA targets; C++ sources become a freestanding
x86-64 ELF object for the CPU. The compiler is the clang inside the ``ziglang`` wheel unless another one (ROCm's, say)
is asked for; AMD objects are linked by IREE's own linker. PTX is assembled too, though the driver does so again where
it runs: ptxas refuses what the driver would, and tells what a kernel takes.
"""

import hashlib
import importlib.metadata
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.entry_source import entry_source
from predecode.custom_kernels.launch import KERNEL_FOLDER, Launch
from predecode.custom_kernels.ptx_entry import in_clusters, requested_memory, requesting_memory
from predecode.custom_kernels.targets import Target
from predecode.pipelines.errors import PredecodeError

DEVICE_HEADERS = KERNEL_FOLDER / "device"
DEFAULT_CACHE = Path.home() / ".cache" / "predecode"
_PTXAS_PACKAGE, _PTXAS_FOLDER = "nvidia-cuda-nvcc-cu12", "nvidia.cuda_nvcc"


class ToolchainError(PredecodeError):
    """A kernel source does not compile, or a tool is missing."""


@dataclass(frozen=True, slots=True)
class CodeObject:
    """A compiled kernel source: its ``data`` as embedded, and the cached file that holds it.

    ``assembler_log`` is what ptxas says of PTX; nothing for other kinds.
    """

    path: Path
    source: str
    data: bytes = field(repr=False)
    assembler_log: str = field(default="", repr=False)

    @property
    def suffix(self) -> str:
        """Kind of object: hsaco, ptx or o."""
        return self.path.suffix.removeprefix(".")

    @property
    def requested_shared_bytes(self) -> int:
        """Workgroup memory that a launch must ask for: what NVIDIA does not give otherwise."""
        return requested_memory(self.data.decode()) if self.suffix == "ptx" else 0

    @property
    def sha256(self) -> str:
        """Hash of ``data``."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Toolchain:
    """A clang command, and the cache folder its results are kept in."""

    clang: tuple[str, ...] = (sys.executable, "-m", "ziglang", "clang")
    cache: Path = DEFAULT_CACHE

    @cached_property
    def _clang_version(self) -> str:
        asked = self._run([*self.clang, "--version"], "asking the compiler for its version")
        return asked.stdout.splitlines()[0]

    def versions(self, target: Target) -> dict[str, str]:
        """Versions of the tools that make code objects for ``target``."""
        versions = {"clang": self._clang_version.removeprefix("clang version ")}
        return versions | {"ptxas": importlib.metadata.version(_PTXAS_PACKAGE)} if target.device == "cuda" else versions

    def build(self, composition: Composition, target: Target) -> CodeObject:
        """The code object that holds ``composition``'s kernel for ``target``; compiled only if not in the cache."""
        commands = _commands(target, composition)
        text = _source_text(target, composition)
        key = self._key(composition, text, commands, self.versions(target))
        entry = self.objects / f"{key}.{commands.suffix}"
        if not entry.exists():
            self._compile(composition, text, commands, entry)
        log = _log_of(entry).read_text() if commands.assemble else ""
        return CodeObject(entry, composition.source, entry.read_bytes(), log)

    @property
    def objects(self) -> Path:
        """Folder of the cached code objects."""
        return self.cache / "kernels"

    def assemble(self, ptx: Path, source: str, target: Target) -> str:
        """What ptxas says of the PTX text in the file ``ptx``, made from ``source``, when it assembles it."""
        return self._assemble(ptx, source, assembler_command(target))

    def _key(self, composition: Composition, text: str, commands: "_Commands", versions: dict[str, str]) -> str:
        digest = hashlib.sha256()
        cluster = str(composition.cluster)
        for part in (*versions.values(), *commands.compile, *commands.link, *commands.assemble, cluster, text):
            digest.update(part.encode() + b"\0")
        sources = [launch.source_path for launch in composition.launches]
        for path in (*sources, *sorted(DEVICE_HEADERS.glob("*.h"))):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def _compile(self, composition: Composition, text: str, commands: "_Commands", entry: Path) -> None:
        entry.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=entry.parent) as folder:
            source = Path(folder) / f"entry.{commands.source_suffix}"
            source.write_text(text)
            include = [flag for launch in composition.launches for flag in ("-I", str(launch.source_path.parent))]
            built = Path(folder) / f"built.{commands.suffix}"
            compiled = Path(folder) / "compiled.o" if commands.link else built
            # Run in its folder: an object names its source as the compiler was given it.
            command = [*self.clang, *commands.compile, *include, "-o", str(compiled), source.name]
            self._run(command, f"compiling {composition.source}", folder)
            if commands.link:
                self._run([*commands.link, str(compiled), "-o", str(built)], f"linking {composition.source}")
            if commands.assemble:
                _finish_ptx(built, composition.cluster)
                log = Path(folder) / "log"
                log.write_text(self._assemble(built, composition.source, commands.assemble))
                log.rename(_log_of(entry))
            built.rename(entry)  # atomic and last: two exports may build the same kernel at once

    def _assemble(self, ptx: Path, source: str, command: tuple[str, ...]) -> str:
        with tempfile.NamedTemporaryFile() as machine_code:
            run = self._run([*command, str(ptx), "-o", machine_code.name], f"assembling {source}")
        return run.stderr

    def _run(self, command: list[str], doing: str, folder: str | None = None) -> subprocess.CompletedProcess[str]:
        try:
            result = subprocess.run(command, capture_output=True, text=True, cwd=folder)
        except FileNotFoundError as error:
            raise ToolchainError(f"{doing}: {command[0]} not found; install the `export` extra") from error
        if result.returncode:
            errors = [line for line in result.stderr.splitlines() if "error" in line or "fatal" in line]
            raise ToolchainError(f"{doing} failed: {(errors or [result.stderr.strip()])[0]}")
        return result


@dataclass(frozen=True, slots=True)
class _Commands:
    """Arguments after the clang command, and command lines of linker and assembler (empty where there is none)."""

    compile: tuple[str, ...]
    link: tuple[str, ...]
    assemble: tuple[str, ...]
    source_suffix: str
    suffix: str


def _finish_ptx(file: Path, cluster: int) -> None:
    ptx = requesting_memory(file.read_text())
    file.write_text(in_clusters(ptx, cluster) if cluster > 1 else ptx)


def _log_of(entry: Path) -> Path:
    return entry.with_suffix(".log")


def assembler_command(target: Target) -> tuple[str, ...]:
    """ptxas of the pinned wheel, which says the same of a kernel wherever it runs."""
    try:
        folder = files(_PTXAS_FOLDER) / "bin"
    except ModuleNotFoundError as error:
        raise ToolchainError("ptxas not found; install the `export` extra") from error
    return str(folder / "ptxas"), "--verbose", f"--gpu-name={target.kernel_arch}"


def _source_text(target: Target, composition: Composition) -> str:
    if target.has_hip_kernels:
        return entry_source(composition)
    return f'#include "{_only_launch(composition).source}"\n'


def _only_launch(composition: Composition) -> Launch:
    (launch,) = composition.launches  # CPU functions are not composed
    return launch


def _commands(target: Target, composition: Composition) -> _Commands:
    include = ("-I", str(DEVICE_HEADERS))
    if target.device == "hip":
        flags = (
            "-cc1",
            "-triple",
            "amdgcn-amd-amdhsa",
            "-target-cpu",
            target.arch,
            "-x",
            "hip",
            "-std=c++20",
        )
        flags += ("-fcuda-is-device", "-O3", "-mcode-object-version=5", "-ffp-contract=on", "-emit-obj")
        linker = str(files("iree.compiler") / "_mlir_libs" / "iree-lld")
        return _Commands(flags + include, (linker, "-flavor", "gnu", "-shared"), (), "hip", "hsaco")
    if target.device == "cuda":
        flags = ("-x", "cuda", "-std=c++20", f"--cuda-gpu-arch={target.kernel_arch}", "--cuda-device-only")
        flags += ("-nocudainc", "-nocudalib", "-O3", "-ffp-contract=on", "-S", "-Wno-unknown-cuda-version")
        return _Commands(flags + include, (), assembler_command(target), "hip", "ptx")
    flags = ("-target", "x86_64-none-elf", "-march=x86-64-v3", "-std=c++20", "-O3", "-ffreestanding")
    flags += (
        "-fno-math-errno",
        "-fno-exceptions",
        "-fno-rtti",
        "-fvisibility=hidden",
        "-fno-plt",
        "-ffunction-sections",
        "-c",
    )
    builtins = ("-isystem", str(files("ziglang") / "lib" / "include"))
    launch = _only_launch(composition)
    macros = tuple(f"-D{name}={value}" for name, value in (*launch.defines, (launch.symbol, launch.linked_symbol)))
    return _Commands(flags + macros + include + builtins, (), (), "cpp", "o")
