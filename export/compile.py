"""MLIR -> vmfb, kept in a content-addressed cache."""

import hashlib
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import iree.compiler.ir as ir
from iree.compiler import version as compiler_version
from iree.compiler.tools.binaries import find_tool

from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export import transients as schedule_changes
from predecode.export.inject import InjectedKernel
from predecode.export.transients import Transients, submitted_without_waiting
from predecode.pipelines.errors import PredecodeError

COMPILER_VERSION = compiler_version.VERSION

_FLAGS = (
    "--iree-input-type=torch",
    # O1 drops the assertions that torch leaves in a program and changes no numbers.
    "--iree-opt-level=O1",
)


@dataclass(frozen=True, slots=True)
class CompiledModule:
    """``vmfb`` bytes, and the compiler's IR after the phases that the audit reads."""

    vmfb: bytes = field(repr=False)
    stream_ir: str = field(repr=False)
    hal_ir: str = field(repr=False)


def compile_module(
    module: ir.Operation,
    kernels: Iterable[InjectedKernel],
    target: Target,
    toolchain: Toolchain,
    transients: Transients = Transients.ALLOCATED,
) -> CompiledModule:
    """Compile ``module`` with its embedded ``kernels`` for ``target``; the same input compiles only once."""
    with tempfile.TemporaryDirectory() as folder:
        bytecode = Path(folder) / "module.mlirbc"
        with open(bytecode, "wb") as file:
            module.write_bytecode(file)
        flags = (*_FLAGS, *transients.flags, *target.compile_flags)
        entry = toolchain.cache / "modules" / _key(bytecode.read_bytes(), kernels, flags)
        if not entry.exists():
            _compile(bytecode, flags, transients, toolchain, entry)
    return CompiledModule(
        vmfb=(entry / "module.vmfb").read_bytes(),
        stream_ir=(entry / "stream.mlir").read_text(),
        hal_ir=(entry / "hal.mlir").read_text(),
    )


def _key(bytecode: bytes, kernels: Iterable[InjectedKernel], flags: Iterable[str]) -> str:
    digest = hashlib.sha256(bytecode)
    # What is changed between the compiler's phases decides the module as well.
    digest.update(Path(schedule_changes.__file__).read_bytes())
    for part in (COMPILER_VERSION, *flags, *sorted(kernel.code.sha256 for kernel in kernels)):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()


def _compile(bytecode: Path, flags: Iterable[str], transients: Transients, toolchain: Toolchain, entry: Path) -> None:
    """Compile into a folder beside ``entry`` and rename it, so that an interrupted compile leaves nothing."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=entry.parent) as folder:
        built, phases = Path(folder) / "built", Path(folder) / "phases"
        built.mkdir()
        scheduled = built / "stream.mlir"
        flags = (*flags, f"--iree-hal-executable-object-search-path={toolchain.objects.absolute()}")
        _run(bytecode, scheduled, *flags, "--compile-to=stream")
        if transients is Transients.PASSED:
            scheduled.write_text(submitted_without_waiting(scheduled.read_text()))
        from_there = ("--compile-from=stream", f"--dump-compilation-phases-to={phases}")
        _run(scheduled, built / "module.vmfb", *flags, *from_there)
        (hal,) = phases.glob("*.hal.mlir")
        hal.rename(built / "hal.mlir")
        try:
            built.rename(entry)
        except OSError:
            if not entry.exists():  # else another export compiled the same module meanwhile
                raise


def _run(source: Path, result: Path, *flags: str) -> None:
    # Run in the source's folder: a module names its source as the compiler was given it.
    command = [find_tool("iree-compile"), source.name, *flags, "-o", str(result)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=source.parent)
    if run.returncode:
        raise PredecodeError(f"iree-compile failed ({run.returncode}): {_first_error(run.stderr)}")


def _first_error(text: str) -> str:
    errors = [line for line in text.splitlines() if "error:" in line]
    return (errors or text.splitlines() or ["no message"])[0][:500]
