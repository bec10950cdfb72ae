"""Writing an artifact whole or not at all, and opening only what was written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from predecode.pipelines.artifact import Artifact, ArtifactError, ArtifactWriter
from tests.pipelines.small_artifact import manifest, step_entry, write_parameters, write_step_artifact


def write_small(output: Path, content: bytes = b"module") -> None:
    with ArtifactWriter(output) as writer:
        (writer.folder / "module.vmfb").write_bytes(content)
        (writer.folder / "parameters.irpa").write_bytes(b"parameters")
        writer.finish(manifest((step_entry(1),), None))


def tree(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_writes_and_opens(tmp_path):
    write_small(tmp_path / "new" / "artifact")
    artifact = Artifact.open(tmp_path / "new" / "artifact")
    assert sorted(artifact.manifest.files) == ["module.vmfb", "parameters.irpa"]
    assert os.listdir(tmp_path / "new") == ["artifact"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_export_leaves_nothing(tmp_path, error):
    with pytest.raises(error), ArtifactWriter(tmp_path / "artifact") as writer:
        (writer.folder / "module.vmfb").write_bytes(b"half")
        raise error
    assert os.listdir(tmp_path) == []


def test_leaving_without_finish_leaves_nothing(tmp_path):
    with ArtifactWriter(tmp_path / "artifact") as writer:
        (writer.folder / "module.vmfb").write_bytes(b"half")
    assert os.listdir(tmp_path) == []


def test_a_failed_export_keeps_the_previous_artifact(tmp_path):
    write_small(tmp_path / "artifact", b"first")
    before = tree(tmp_path)
    with pytest.raises(RuntimeError), ArtifactWriter(tmp_path / "artifact") as writer:
        (writer.folder / "module.vmfb").write_bytes(b"second")
        raise RuntimeError
    assert tree(tmp_path) == before


def test_replaces_an_artifact(tmp_path):
    write_small(tmp_path / "artifact", b"first")
    write_small(tmp_path / "artifact", b"second")
    assert (tmp_path / "artifact" / "module.vmfb").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["artifact"]


def test_a_failed_move_brings_the_previous_artifact_back(tmp_path, monkeypatch):
    write_small(tmp_path / "artifact", b"first")
    before = tree(tmp_path)
    rename = Path.rename

    def fail_on_new(self, target):
        if self.suffix == ".partial":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_on_new)
    with pytest.raises(OSError, match="no"):
        write_small(tmp_path / "artifact", b"second")
    assert tree(tmp_path) == before


def test_other_folders_are_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ArtifactError, match=r"holds files but no manifest\.json"):
        write_small(tmp_path)
    assert os.listdir(tmp_path) == ["thesis.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "artifact").mkdir()
    write_small(tmp_path / "artifact")
    assert Artifact.open(tmp_path / "artifact")


def test_a_relative_folder_is_that_of_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_small(Path("artifact"))
    assert os.listdir(tmp_path) == ["artifact"]


def test_two_folders_get_the_same_bytes(tmp_path, step_module):
    first = write_step_artifact(tmp_path / "a" / "one", step_module)
    second = write_step_artifact(tmp_path / "another place" / "two", step_module)
    assert tree(first) == tree(second)
    assert str(tmp_path).encode() not in b"".join(tree(first).values())


def test_parameters_carry_no_time(tmp_path):
    write_parameters(tmp_path / "a.irpa")
    time.sleep(1.1)
    write_parameters(tmp_path / "b.irpa")
    assert (tmp_path / "a.irpa").read_bytes() == (tmp_path / "b.irpa").read_bytes()


def test_hashing_can_be_skipped_but_sizes_are_checked(step_artifact):
    module = step_artifact / "module.vmfb"
    data = bytearray(module.read_bytes())
    data[-1] ^= 1
    module.write_bytes(data)
    Artifact.open(step_artifact, hashes=False)
    with pytest.raises(ArtifactError, match=r"module\.vmfb has SHA-256"):
        Artifact.open(step_artifact)
    module.write_bytes(data[:-1])
    with pytest.raises(ArtifactError, match="bytes, the manifest says"):
        Artifact.open(step_artifact, hashes=False)


def test_files_outside_the_artifact_are_refused(step_artifact):
    path = step_artifact / "manifest.json"
    document = json.loads(path.read_text())
    document["files"]["../secret"] = {"sha256": "00", "bytes": 0}
    path.write_text(json.dumps(document))
    with pytest.raises(ArtifactError, match="outside the artifact"):
        Artifact.open(step_artifact)


def test_progress_counts_all_bytes(step_artifact):
    seen = []
    Artifact.open(step_artifact, progress=lambda what, done, total: seen.append((what, done, total)))
    assert (
        seen[-1][1]
        == seen[-1][2]
        == sum(p.stat().st_size for p in step_artifact.iterdir()) - (step_artifact / "manifest.json").stat().st_size
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_export_leaves_nothing(tmp_path, number):
    # What starts the tests may have left interrupts ignored, as a shell does for a job in the background.
    code = (
        "import signal, sys, time\n"
        "from pathlib import Path\n"
        "from predecode.pipelines import command_line\n"
        "from predecode.pipelines.artifact import ArtifactWriter\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "def export(options, output, progress):\n"
        "    with ArtifactWriter(output) as writer:\n"
        "        (writer.folder / 'module.vmfb').write_bytes(b'half')\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(30)\n"
        "command_line._load_exporter = lambda: (export, dict)\n"
        f"command_line.main(['export', 'tiny', '-o', {str(tmp_path / 'artifact')!r}])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert errors == "predecode: interrupted\n"
    assert process.returncode == 130
    assert os.listdir(tmp_path) == []
