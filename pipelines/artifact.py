"""The artifact: a folder of module, parameters, manifest and golden, written whole and opened checked."""

import hashlib
import importlib.metadata
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import FileRecord, Manifest
from predecode.pipelines.records import RecordError

MANIFEST_FILE = "manifest.json"
COMPILER_PACKAGE = "iree-base-compiler"
RUNTIME_PACKAGE = "iree-base-runtime"

Progress = Callable[[str, int, int], None]
"""Called with (what is done, how much of it, of how much)."""


class ArtifactError(PredecodeError):
    """A folder that is not an artifact this program can use."""


def file_sha256(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file; ``progress`` is called with the bytes of each piece."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 22):
            digest.update(piece)
            if progress:
                progress(len(piece))
    return digest.hexdigest()


class ArtifactWriter:
    """Context manager that writes an artifact beside ``output`` and moves it there when all is done.

    Files are written under ``folder``; `finish` adds the manifest and hashes and moves the folder into place.
    Leaving the context without `finish` (an error, an interrupt) removes everything that was written. An
    artifact that already stands at ``output`` is replaced, anything else there is refused.
    """

    def __init__(self, output: Path):
        self.output = Path(os.path.abspath(output))
        self.folder: Path | None = None

    def __enter__(self) -> "ArtifactWriter":
        _refuse_other_content(self.output)
        self.output.parent.mkdir(parents=True, exist_ok=True)
        self.folder = self.output.parent / f".{self.output.name}.{secrets.token_hex(6)}.partial"
        self.folder.mkdir()
        return self

    def __exit__(self, *_) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def finish(self, manifest: Manifest) -> Manifest:
        """Write ``manifest`` with the hashes of all files and move the folder to its place."""
        files = {
            path.relative_to(self.folder).as_posix(): FileRecord(file_sha256(path), path.stat().st_size)
            for path in self.folder.rglob("*")
            if path.is_file()
        }
        manifest = replace(manifest, files=files)
        manifest.check()
        (self.folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
        self._move_into_place()
        self.folder = None
        return manifest

    def _move_into_place(self) -> None:
        _refuse_other_content(self.output)
        if not self.output.exists():
            self.folder.rename(self.output)
            return
        previous = self.folder.with_suffix(".previous")
        self.output.rename(previous)
        try:
            self.folder.rename(self.output)
        except BaseException:
            previous.rename(self.output)
            raise
        shutil.rmtree(previous, ignore_errors=True)


def _refuse_other_content(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise ArtifactError(f"{output} is a file, expected a new folder or an artifact to replace; choose another")
    if any(output.iterdir()) and not (output / MANIFEST_FILE).is_file():
        raise ArtifactError(
            f"{output} holds files but no {MANIFEST_FILE}, so it is no artifact and is left alone; choose "
            "another folder or empty it"
        )


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact on disk whose manifest has been checked."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path | str, *, hashes: bool = True, progress: Progress | None = None) -> "Artifact":
        """Read and check the artifact in ``folder``.

        Sizes are always checked; ``hashes=False`` skips reading every file for its SHA-256.
        Raises `ArtifactError` with one line that names both sides of what does not match.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        _check_runtime(folder, manifest)
        for name, record in sorted(manifest.files.items()):
            _check_file(folder, name, record)
        if hashes:
            _check_hashes(folder, manifest, progress)
        return cls(folder, manifest)

    def path(self, name: str) -> Path:
        """Path of a file of the artifact."""
        return self.folder / name


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of the artifact in ``folder``, whatever its other files are."""
    folder = Path(folder)
    if not folder.exists():
        raise ArtifactError(f"{folder} does not exist; give the folder that `predecode export -o` wrote")
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise ArtifactError(f"{folder} is no artifact: it has no {MANIFEST_FILE}; give what `predecode export` wrote")
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except (RecordError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: {error}") from None


def _check_runtime(folder: Path, manifest: Manifest) -> None:
    compiled = manifest.tools.get(COMPILER_PACKAGE)
    installed = importlib.metadata.version(RUNTIME_PACKAGE)
    if compiled is None:
        raise ArtifactError(f"{folder}: tools does not name {COMPILER_PACKAGE}, so its runtime cannot be checked")
    if compiled != installed:
        raise ArtifactError(
            f"{folder} was compiled by {COMPILER_PACKAGE} {compiled}, but {RUNTIME_PACKAGE} {installed} is "
            f"installed; install {RUNTIME_PACKAGE}=={compiled} or export again"
        )


def _check_file(folder: Path, name: str, record: FileRecord) -> None:
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ArtifactError(f"{folder}: the manifest lists {name!r}, which is outside the artifact; export again")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing, the manifest lists {record.bytes} bytes; copy it or export again")
    if path.stat().st_size != record.bytes:
        raise ArtifactError(
            f"{path} has {path.stat().st_size} bytes, the manifest says {record.bytes}; copy it again or export again"
        )


def _check_hashes(folder: Path, manifest: Manifest, progress: Progress | None) -> None:
    total = sum(record.bytes for record in manifest.files.values())
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        if progress:
            progress("checking files", done, total)

    for name, record in sorted(manifest.files.items()):
        digest = file_sha256(folder / name, advance)
        if digest != record.sha256:
            raise ArtifactError(
                f"{folder / name} has SHA-256 {digest[:12]}..., the manifest says {record.sha256[:12]}...; "
                "it was changed after the export: export again"
            )
