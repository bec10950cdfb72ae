"""The command line: what it prints, its exit codes, and that every mistake is one line."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from predecode.pipelines import command_line
from tests.pipelines.small_artifact import CACHE, WEIGHT


def edit_manifest(artifact, value, *path):
    """Set the value at ``path`` of the artifact's manifest.json."""
    file = artifact / "manifest.json"
    document = json.loads(file.read_text())
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value
    file.write_text(json.dumps(document))


def refresh_files(artifact):
    """Make the manifest's sizes and hashes those of the files."""
    for name in json.loads((artifact / "manifest.json").read_text())["files"]:
        data = (artifact / name).read_bytes()
        edit_manifest(artifact, {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}, "files", name)


@pytest.fixture
def call(capfd):
    """Runs the command line; gives (exit code, output, errors)."""

    def run(*words):
        with pytest.raises(SystemExit) as caught:
            command_line.main([str(word) for word in words])
        streams = capfd.readouterr()
        return caught.value.code, streams.out, streams.err

    return run


def test_run(call, step_artifact):
    code, output, errors = call("run", step_artifact, "--steps", 3)
    assert (code, errors) == (0, "")
    assert "small for cpu on local-task: 3 steps of 1 rows" in output
    assert output.count("row 0: ") == 1


def test_run_json(call, step_artifact):
    document = json.loads(call("run", step_artifact, "--steps", 3, "--json")[1])
    assert (document["steps"], document["rows"], len(document["seconds"]), len(document["tokens"])) == (
        3,
        1,
        3,
        3,
    )


def test_run_of_a_layer(call, layer_artifact):
    code, output, _ = call("run", layer_artifact, "--steps", 2)
    assert code == 0
    assert "one rank of 2 alone" in output


def test_run_refuses_results_that_are_not_finite(call, step_artifact):
    parameters = step_artifact / "parameters.irpa"
    data = parameters.read_bytes()
    # The weight's row of token 1, which a run starts with.
    first = data.index(WEIGHT[1].tobytes())
    parameters.write_bytes(data[:first] + np.float32("nan").tobytes() + data[first + 4 :])
    refresh_files(step_artifact)
    code, _, errors = call("run", step_artifact)
    assert code == 2
    assert "logits of row 0 in step 0 is nan, expected finite numbers" in errors


def test_compare(call, step_artifact):
    code, output, errors = call("compare", step_artifact)
    assert (code, errors) == (0, "")
    assert output.rstrip().endswith("OK: 2 outputs over 3 steps on local-task")


def test_compare_outside_tolerance(call, step_artifact):
    edit_manifest(step_artifact, {"relative": 0.0, "cosine": 1.1}, "golden", "tolerance", "logits")
    code, output, errors = call("compare", step_artifact)
    assert code == 1
    assert "FAILED" in output
    assert "OK" not in output
    assert errors.splitlines()[0].startswith("predecode: step.logits in step 0: cosine of the row below 1.1")
    assert f"{step_artifact}.mismatch" in errors
    document = json.loads(call("compare", step_artifact, "--json")[1])
    assert document["passed"] is False


def test_inspect(call, step_artifact, tmp_path):
    code, output, _ = call("inspect", step_artifact)
    assert code == 0
    assert "sum_cache" in output
    code, output, _ = call("inspect", step_artifact, "--json", "--html", tmp_path / "page.html")
    assert json.loads(output)["model"] == "small"
    assert "sum_cache" in (tmp_path / "page.html").read_text()


def test_inspect_shows_the_chosen_rows_alone(call, step_artifact):
    for chosen, names in (("3", ["step_rows3"]), ("3,1", ["step_rows1", "step_rows3"])):
        code, output, _ = call("inspect", step_artifact, "--rows", chosen, "--json")
        assert (code, [entry["name"] for entry in json.loads(output)["entry_points"]]) == (0, names)
    code, _, error = call("inspect", step_artifact, "--rows", "2")
    assert code == 2 and "--rows 2: the artifact has steps of 1, 3 rows; choose of these" in error


def test_help(call):
    code, output, _ = call("--help")
    assert code == 0
    assert all(verb in output for verb in ("export", "run", "compare", "inspect"))


def remove(name):
    return lambda artifact: (artifact / name).unlink()


def cut(name, refresh=False):
    def change(artifact):
        data = (artifact / name).read_bytes()
        (artifact / name).write_bytes(data[: len(data) // 2])
        if refresh:
            refresh_files(artifact)

    return change


def flip(name):
    def change(artifact):
        data = bytearray((artifact / name).read_bytes())
        data[len(data) // 2] ^= 1
        (artifact / name).write_bytes(data)

    return change


def fill(name, content):
    return lambda artifact: (artifact / name).write_text(content)


def edit(value, *path):
    return lambda artifact: edit_manifest(artifact, value, *path)


def noise(name):
    def change(artifact):
        (artifact / name).write_bytes(b"\x07" * 5000)
        refresh_files(artifact)

    return change


def nothing(artifact):
    pass


# What is broken, the command ({} stands for the artifact), and a part of the one line it must give.
BAD_INPUTS = [
    (nothing, "run {}/nowhere", "nowhere does not exist"),
    (nothing, "inspect {}/nowhere", "nowhere does not exist"),
    (remove("manifest.json"), "run {}", "is no artifact: it has no manifest.json"),
    (remove("manifest.json"), "inspect {}", "is no artifact: it has no manifest.json"),
    (nothing, "run {}/manifest.json", "is no artifact"),
    (fill("manifest.json", "{"), "run {}", "not valid JSON"),
    (
        fill("manifest.json", "\udce4\udcff".encode("utf-8", "surrogateescape").decode("latin1")),
        "run {}",
        "not valid JSON",
    ),
    (edit(99, "format_version"), "run {}", "format version 99 was written, this predecode reads version 1"),
    (edit([], "entry_points"), "run {}", "entry_points is empty"),
    (edit("many", "geometry", "pages"), "inspect {}", "geometry.pages is a str, expected a int"),
    (edit({}, "tools"), "run {}", "tools does not name iree-base-compiler"),
    (
        edit("3.12.0", "tools", "iree-base-compiler"),
        "run {}",
        "compiled by iree-base-compiler 3.12.0, but iree-base-runtime",
    ),
    (remove("module.vmfb"), "run {}", "module.vmfb is missing"),
    (remove("parameters.irpa"), "run {}", "parameters.irpa is missing"),
    (remove("golden.safetensors"), "compare {}", "golden.safetensors is missing"),
    (cut("module.vmfb"), "run {}", "bytes, the manifest says"),
    (flip("module.vmfb"), "run {}", "it was changed after the export"),
    (flip("parameters.irpa"), "compare {}", "it was changed after the export"),
    (noise("module.vmfb"), "run {}", "cannot be loaded on local-task"),
    (cut("module.vmfb", refresh=True), "run {}", "cannot be loaded on local-task"),
    (noise("parameters.irpa"), "run {}", "cannot be loaded on local-task"),
    (cut("golden.safetensors", refresh=True), "compare {}", "is no whole safetensors file"),
    (edit("other", "parameters", "scope"), "run {}", "cannot be loaded on local-task"),
    (edit("other", "entry_points", 0, "name"), "run {}", "has no function 'other'"),
    (edit("gfx9999", "target", "name"), "run {}", "compiled for target 'gfx9999', this predecode runs"),
    (edit("arm64", "target", "arch"), "run {}", "compiled for arm64, this machine is"),
    (
        nothing,
        "run {} --device hip",
        "compiled for cpu, which runs on local-task or local-sync, not on 'hip'",
    ),
    (nothing, "run {} --device nonsense://7", "not on 'nonsense://7'"),
    (nothing, "run {} --device emulated", "only gfx942 and gfx950 are emulated"),
    (
        edit(
            {
                **{"name": "gfx942", "device": "hip", "arch": "gfx942"},
                "element_format": "e4m3fnuz",
                "memory_bandwidth": 1.0,
                "compute_units": 1,
            },
            "target",
        ),
        "run {}",
        "the artifact needs gfx942, but no hip device",
    ),
    (
        edit(
            {
                **{"name": "sm_90", "device": "cuda", "arch": "sm_90"},
                "element_format": "e4m3fn",
                "memory_bandwidth": 1.0,
                "compute_units": 1,
            },
            "target",
        ),
        "compare {} --device cuda://0",
        "the artifact needs sm_90, but no cuda device",
    ),
    (
        edit(
            {
                "name": "gfx942",
                "device": "hip",
                "arch": "gfx942",
                "element_format": "e4m3fnuz",
                "memory_bandwidth": 1.0,
                "compute_units": 1,
            },
            "target",
        ),
        "run {} --device local-task",
        "compiled for gfx942, which runs on hip, not on 'local-task'",
    ),
    (nothing, "run {} --steps 0", "0 steps were asked for"),
    (nothing, "run {} --steps 1000", "longer than the artifact's context of 128"),
    (nothing, "run {} --steps many", "Invalid value for '--steps'"),
    (nothing, "run", "Missing argument 'DIR'"),
    (nothing, "run {} --speed", "No such option"),
    (nothing, "walk {}", "No such command 'walk'"),
    (nothing, "compare {} --golden {}/nothing", "nothing does not exist; give a golden file"),
    (nothing, "compare {} --golden {}/module.vmfb", "is no whole safetensors file"),
    (edit(None, "golden"), "compare {}", "exported without tolerances"),
    (edit({}, "golden", "tolerance"), "compare {}", "gives no tolerance for result 'logits'"),
    (nothing, "inspect {} --html {}/no/such/folder.html", "No such file or directory"),
    (nothing, "inspect {} --html {}", "Is a directory"),
    (nothing, "inspect {} --html /dev/full", "no space left on the disk"),
    (nothing, "export tiny --rows 1,x -o {}/new", "--rows '1,x': expected whole numbers"),
    (nothing, "export tiny", "Missing option '--output'"),
]


@pytest.mark.parametrize(
    ("change", "command", "message"),
    BAD_INPUTS,
    ids=[f"{i}-{m[:30]}" for i, (_, _, m) in enumerate(BAD_INPUTS)],
)
def test_every_mistake_is_one_line(call, step_artifact, change, command, message):
    change(step_artifact)
    code, output, errors = call(*command.replace("{}", str(step_artifact)).split())
    assert message in errors
    assert errors.startswith("predecode: ")
    assert errors.count("\n") == 1
    assert (code, output) == (2, "")


def test_export_without_its_packages(call, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith(("predecode.export", "predecode.custom_kernels"))]:
        monkeypatch.delitem(sys.modules, name)
    code, _, errors = call("export", "tiny", "-o", tmp_path / "artifact")
    assert code == 2
    assert errors.startswith("predecode: exporting needs the package 'torch', which is not installed")
    assert errors.count("\n") == 1


def test_programming_errors_are_not_hidden(monkeypatch, step_artifact):
    from predecode.pipelines import running

    monkeypatch.setattr(running, "run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command_line.main(["run", str(step_artifact)])


def test_a_closed_pipe_is_quiet(step_artifact):
    read, write = os.pipe()
    os.close(read)
    call = f"command_line.main(['inspect', {str(step_artifact)!r}, '--json'])"
    code = f"from predecode.pipelines import command_line; {call}"
    done = subprocess.run([sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(write)
    assert done.stderr == ""
    assert done.returncode != 0


def test_names_are_whole_in_the_table(call, step_artifact):
    output = call("compare", step_artifact)[1]
    folded = "".join(line.split("│")[1].strip() for line in output.splitlines() if line.startswith("│"))
    assert CACHE in folded
