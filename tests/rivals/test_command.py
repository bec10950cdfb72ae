"""The whole command on the CPU, its tables and JSON, and the folder of libraries."""

import dataclasses
import io
import json
import re
import xml.etree.ElementTree
import zipfile
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from predecode.pipelines.bench.report import DispatchReport, RunReport
from tests.rivals import __main__ as command
from tests.rivals import isolated
from tests.rivals import libraries as libraries_module
from tests.rivals.fetch import trim
from tests.rivals.kernels import FAMILIES
from tests.rivals.libraries import COMMON_LIBRARY, FLASH_MLA_LIBRARY, OPS_ARCHIVE, Libraries
from tests.rivals.page import render_page
from tests.rivals.picture import render_picture
from tests.rivals.report import KernelResult, LayerResult, RivalError, RivalsReport, our_dispatch
from tests.rivals.table import renderables

METADATA = "sglang_kernel-0.0.1.dist-info/METADATA"


def printed(report: RivalsReport) -> str:
    console = Console(file=io.StringIO(), width=220)
    for part in renderables(report):
        console.print(part)
    return console.file.getvalue()


def test_all_parts_on_the_cpu(artifact, tmp_path, capsys):
    path = tmp_path / "rivals.json"
    arguments = [str(artifact), "--rows", "4", "--context", "200", "--device", "cpu", "--json", str(path)]
    assert command.main(arguments) == 0
    document = json.loads(path.read_text())
    by_name = {result["name"]: result for result in document["layers"]}
    for name in ("predecode", "torch eager, bf16 experts grouped", "torch eager, fp8 experts gathered"):
        assert by_name[name]["reason"] is None and min(by_name[name]["seconds"]) > 0
    assert by_name["torch eager, fp8 experts gathered"]["deviation"] < 0.07
    assert by_name["torch.compile in a CUDA graph, fp8 experts gathered"]["reason"] == "needs an NVIDIA GPU"
    assert document["skipped"] == {"kernels": "need an NVIDIA GPU"} and document["bench"]["bandwidth"] > 0
    shown = capsys.readouterr().out
    assert "needs an NVIDIA GPU" in shown and "memory read at" in shown


def test_parts_can_be_left_out(artifact, capsys):
    arguments = [str(artifact), "--rows", "4", "--context", "70", "--device", "cpu"]
    assert command.main([*arguments, "--without", "predecode,kernels,compile"]) == 0
    shown = capsys.readouterr().out
    assert "torch eager, fp8 experts gathered" in shown
    assert "predecode" not in shown and "compile" not in shown and "memory read" not in shown


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--context", "9999"], "error: --context 9999 is more than the artifact's 256 tokens"),
        (["--rows", "4"], "error: no NVIDIA GPU is found; --device cpu runs the parts that need none"),
    ],
)
def test_bad_input_is_one_line(artifact, monkeypatch, capsys, extra, reason):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = [] if "GPU" in reason else ["--device", "cpu", "--without", "predecode"]
    assert command.main([str(artifact), *extra, *device]) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(reason)


def test_an_unknown_part_is_refused(artifact, capsys):
    with pytest.raises(SystemExit):
        command.main([str(artifact), "--without", "eagre"])
    assert "'eagre' is no part; expected some of predecode,eager,kernels,compile" in capsys.readouterr().err


def test_our_part_failing_does_not_stop_the_others(artifact, monkeypatch, capsys):
    def fail(*arguments, **options):
        raise OSError("the driver is gone")

    monkeypatch.setattr(command, "bench", fail)
    options = ["--rows", "4", "--context", "70", "--device", "cpu", "--without", "compile"]
    assert command.main([str(artifact), *options]) == 0
    shown = capsys.readouterr().out
    assert "OSError: the driver is gone" in shown and "torch eager, fp8 experts gathered" in shown


def _run(*dispatches: tuple[str, str, float]) -> RunReport:
    reports = tuple(DispatchReport(name, w, "kernel", (1, 1, 1), 100, False, 1e-6, (s,)) for name, w, s in dispatches)
    fields = dict.fromkeys((f.name for f in dataclasses.fields(RunReport)), None)
    return RunReport(**(fields | {"rows": 4, "dispatches": reports}))


def test_our_dispatch_is_found_by_op_and_weight():
    gemm = "gemm_fp8_blockscale"
    run = _run(
        (f"{gemm}+{gemm}+linear_bf16", "attention.qkv_a, indexer.wk, indexer.weights_proj", 9e-6),
        (gemm, "attention.o_proj", 5e-6),
        ("indexer_q_prepare+q_absorb_rope_cat, paged_mqa_logits", "attention.kv_b", 7e-6),
    )
    assert our_dispatch(run, gemm, "attention.o_proj") == (5e-6, "")
    assert our_dispatch(run, gemm, "attention.qkv_a") == (9e-6, "indexer.wk + indexer.weights_proj")
    assert our_dispatch(run, "paged_mqa_logits", "") == (7e-6, "indexer_q_prepare + q_absorb_rope_cat")
    assert our_dispatch(run, gemm, "attention.q_b") == (None, "") == our_dispatch(None, gemm, "attention.q_b")


def test_our_dispatch_is_found_in_a_chain():
    run = _run(("moe_gate_up, group_quant, moe_down", "mlp.experts.gate_up, mlp.experts.down", 4e-5))
    assert our_dispatch(run, "moe_down", "mlp.experts.down") == (4e-5, "moe_gate_up + group_quant")


def test_our_dispatch_is_found_where_it_makes_its_rows():
    norm, gemm = "add_rms_norm_group_quant", "add_normed_gemm_fp8_blockscale"
    run = _run(
        (f"{norm}+{gemm}+{gemm}", "input_norm, attention.qkv_a, indexer.wk", 9e-6),
        ("indexer_q_prepare_and_logits", "", 5e-6),
    )
    assert our_dispatch(run, "gemm_fp8_blockscale", "indexer.wk") == (9e-6, "input_norm + attention.qkv_a")
    assert our_dispatch(run, "paged_mqa_logits", "") == (5e-6, "")


def test_tables_show_reasons_and_times():
    report = RivalsReport("glm-5.1", "8192", "a GPU", {"torch": "2.11"}, "method")
    report.layers = [LayerResult("slow", 4, (3e-4, 2e-4, 4e-4), 0.04), LayerResult("gone", 4, reason="not there")]
    report.kernels = [
        KernelResult("topk", "a kernel", 4, 1000, 5e-6, "another op", "unordered", (9.4e-6,), 1e-7),
        KernelResult("topk", "a wrong one", 4, 1000, None, "", "", reason="wrong: deviates by 1, allowed 1e-05"),
    ]
    report.skipped = {"FlashMLA": "cannot be imported"}
    shown = printed(report)
    for text in ("300 µs", "4.0e-02", "not there", "9.40 µs", "5.00 µs", "unordered; ours with another op"):
        assert text in shown
    assert "wrong: deviates by 1, allowed 1e-05" in shown and "FlashMLA: cannot be imported" in shown
    assert json.loads(report.to_json())["kernels"][0]["seconds"] == [9.4e-6]


def _of_one_dispatch() -> RivalsReport:
    """A layer of 100 µs and one of 900; kernels of 30 and 20 µs for what one dispatch of ours does in 40."""
    report = RivalsReport("glm-5.1", "8192", "a GPU", {"torch": "2.11"}, "method")
    layers = (("predecode", 1e-4), ("slow", 9e-4))
    report.layers = [LayerResult(name, 4, (seconds,), 0.04) for name, seconds in layers]
    report.layers.append(LayerResult("gone", 4, reason="not <there>"))
    report.kernels = [
        KernelResult("gate_up", "a kernel", 4, 1000, 4e-5, "down", "", (3e-5,), 1e-7),
        KernelResult("down", "a kernel", 4, 1000, 4e-5, "gate_up", "", (2e-5,), 1e-7),
    ]
    return report


def test_a_report_is_read_back():
    report = _of_one_dispatch()
    assert RivalsReport.from_json(report.to_json()) == report


def test_a_report_with_our_own_figures_is_read_back(artifact, tmp_path):
    path = tmp_path / "rivals.json"
    arguments = [str(artifact), "--rows", "4", "--context", "70", "--device", "cpu", "--json", str(path)]
    assert command.main([*arguments, "--without", "eager,kernels,compile"]) == 0
    read = RivalsReport.from_json(path.read_text())
    assert read.run_of(4).floor > 0 and read.to_json() == path.read_text()


def _bars(page: str, name: str) -> list[tuple[str, float, float]]:
    """Style, left and width, in percent of the plot, of the bars in the row that begins with ``name``."""
    row = re.search(f'<tr><td class="name"><code>{re.escape(name)}</code>.*?</tr>', page).group()
    found = re.findall(r'<i class="(\w+)" style="left:([\d.]+)%;width:([\d.]+)%"', row)
    return [(style, float(left), float(width)) for style, left, width in found]


def test_page_draws_layers_against_ours():
    page = render_page(_of_one_dispatch())
    assert _bars(page, "predecode") == [("kernel", 0, 12.5)]
    assert _bars(page, "slow") == [("compiled", 0, 100)], "cut off at eight times ours"
    assert _bars(page, "gone") == [] and "not &lt;there&gt;" in page
    assert '<td class="right number">9.0</td>' in page


def test_page_draws_kernels_behind_each_other_below_our_dispatch():
    page = render_page(_of_one_dispatch())
    assert _bars(page, "no dispatch of ours") == [("kernel", 0, 80)]
    assert _bars(page, "a kernel: gate_up") == [("compiled", 0, 60)]
    assert _bars(page, "a kernel: down") == [("compiled", 60, 40)]
    assert '<td class="right number">50.00 µs</td>' in page, "together"


def test_picture_shows_the_fastest_of_each_kind_in_times_the_floor():
    report = RivalsReport("glm-5.1", "8192", "a GPU", {"torch": "2.11"}, "method")
    report.bench = SimpleNamespace(runs=[SimpleNamespace(rows=4, floor=1e-4, layers=2)])  # of a layer: 50 µs
    seconds = {"graph, one way": 8e-4, "predecode": 1e-4, "graph, <another>": 5e-4, "host": 2e-3, "gone": None}
    report.layers = [LayerResult(name, 4, (s,) if s else ()) for name, s in seconds.items()]
    report.layers.append(LayerResult("predecode", 16, (1e-4,)))
    picture = render_picture(report)
    bars = re.findall(r'<rect class="(\w+)" x="(\d+)" y="\d+" width="([\d.]+)"', picture)
    assert [(style, float(width)) for style, _, width in bars] == [("ours", 104), ("other", 520)]
    (left,) = {float(left) for _, left, _ in bars}
    floor = float(re.search(r'<line class="floor" x1="([\d.]+)"', picture)[1])
    assert floor - left == 52, "half of ours"
    for text in ("100 µs, 2.0 × floor", "500 µs, 10.0 × floor", "4 rows, floor 50.00 µs"):
        assert text in picture
    assert "host" not in picture and "gone" not in picture and "16 rows" not in picture
    xml.etree.ElementTree.fromstring(picture)


def test_a_report_is_shown_again(tmp_path, capsys):
    path, page = tmp_path / "rivals.json", tmp_path / "page.html"
    path.write_text(_of_one_dispatch().to_json())
    assert command.main([str(path), "--html", str(page), "--svg", str(tmp_path / "picture.svg")]) == 0
    assert "900 µs" in capsys.readouterr().out and "slow" in page.read_text()
    assert (tmp_path / "picture.svg").read_text().startswith("<svg")


def test_a_page_that_cannot_be_written_is_one_line(tmp_path, capsys):
    path = tmp_path / "rivals.json"
    path.write_text(_of_one_dispatch().to_json())
    assert command.main([str(path), "--html", str(tmp_path / "nowhere" / "page.html")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "nowhere" in line


@pytest.mark.parametrize("text", ["", "[]", '{"artifact": 1}', "\x00"])
def test_what_is_no_report_is_one_line(tmp_path, capsys, text):
    path = tmp_path / "rivals.json"
    path.write_text(text)
    assert command.main([str(path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"error: {path} is no report of this command: ")


@pytest.fixture
def folder(tmp_path):
    """As `fetch` makes it, with a package of one line and libraries that are none."""
    with zipfile.ZipFile(tmp_path / "sgl_deep_gemm-0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("deep_gemm/__init__.py", "raise OSError('libcudart.so.13: cannot open shared object file')")
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as whole:
        for name in (FLASH_MLA_LIBRARY, COMMON_LIBRARY, "sgl_kernel/flash_ops.abi3.so"):
            whole.writestr(name, b"\x7fELF of nothing")
        whole.writestr(METADATA, "Name: sglang-kernel\nVersion: 0.0.1\n")
    trim(tmp_path / "whole.zip", tmp_path / OPS_ARCHIVE)
    return tmp_path


def test_only_the_libraries_that_are_used_are_kept(folder):
    with zipfile.ZipFile(folder / OPS_ARCHIVE) as kept:
        assert kept.namelist() == [FLASH_MLA_LIBRARY, COMMON_LIBRARY, METADATA]


def test_versions_are_known_of_libraries_from_a_folder(folder):
    """Though only the kernels' own processes load them."""
    assert "sglang-kernel" not in command._versions(None)
    assert command._versions(folder)["sglang-kernel"] == "0.0.1"


@pytest.fixture
def unchanged_path(monkeypatch):
    monkeypatch.setattr(libraries_module.sys, "path", list(libraries_module.sys.path))


def said(cases, family: str, **options) -> list:
    """What a process says of a family, in this process."""
    messages = []
    given = {"done": 0, "runs": {}, "deadline": float("inf")} | options
    isolated._serve(SimpleNamespace(send=messages.append), cases, family, **given)
    return messages


@pytest.mark.parametrize("family", FAMILIES)
def test_each_missing_library_is_noted(artifact, folder, unchanged_path, family):
    (ended,) = said(isolated.Sources(artifact, folder, (4,), "200", "cpu"), family)
    missing = "sgl-deep-gemm cannot be imported (OSError: libcudart.so.13: cannot open shared object file)"
    library = {"FlashMLA": FLASH_MLA_LIBRARY, "SGLang, top-k": COMMON_LIBRARY}.get(family)
    assert ended.reason.startswith(f"{library} cannot be loaded: ") if library else ended.reason == missing


def test_what_is_not_installed_is_named(artifact):
    (ended,) = said(isolated.Sources(artifact, None, (4,), "200", "cpu"), "FlashMLA")
    assert "sglang-kernel cannot be imported (ModuleNotFoundError" in ended.reason


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(RivalError, match="holds no wheel"):
        Libraries(tmp_path)


def test_kernels_stop_at_the_deadline(artifact, monkeypatch):
    from tests.rivals import stand_ins

    monkeypatch.setattr(Libraries, "deep_gemm", lambda self: stand_ins.DeepGemm())
    sources = isolated.Sources(artifact, None, (4,), "200", "cpu")
    (ended,) = said(sources, "DeepGEMM, experts", deadline=0.0)
    assert ended.reason.startswith("not finished at moe_gate_up 256 to 512, 4 rows")
    begun, result, *_, ended = said(sources, "DeepGEMM, experts", done=1)
    assert begun.result.op == result.op == "moe_down 256 to 256" and ended.reason is None
