"""What `inspect` tells: figures of the manifest as JSON, as tables and as a page."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from predecode.pipelines import inspect
from predecode.pipelines.inspection import Inspection, used_kernels
from predecode.pipelines.kernel_record import InstructionCounts, KernelRecord, KernelResources, Occupancy
from predecode.pipelines.manifest import Exemption, TargetRecord
from predecode.pipelines.page_style import STYLE, name_cell
from predecode.pipelines.quantities import format_bytes, format_ratio, format_seconds, format_widths
from tests.pipelines.small_artifact import CACHE, manifest, step_entry

RESOURCES = KernelResources(96, 8192, 0, 0, accumulator_registers=32, scalar_registers=40, scalar_spills=0)
ASSEMBLED = KernelResources(154, 8192, 0, 0)
INSTRUCTIONS = InstructionCounts(1234, 56, {"4": 7, "16": 28}, {"2": 1}, 10, 0, 6, 2)


def gpu_kernel(resources=RESOURCES):
    occupied = Occupancy(2, 4.0, "vector registers")
    return KernelRecord("write_cache", "write_cache.hip", "00" * 32, resources, 8, occupied, INSTRUCTIONS)


def on_gpu(kernel=None):
    entry = step_entry(3)
    audit = replace(entry.audit, fills=1, exempted=(Exemption("fill", "scores start at <minus infinity>"),))
    whole = manifest((step_entry(1), replace(entry, audit=audit)), None)
    target = TargetRecord("gfx950", "hip", "gfx950", "e4m3fn", 8e12, 4)
    return replace(whole, target=target, kernels=(kernel or gpu_kernel(),))


def text_of(whole) -> str:
    output = io.StringIO()
    Inspection(whole).print_to(Console(file=output, width=140))
    return output.getvalue()


def test_json_keys(step_artifact):
    document = json.loads(inspect(step_artifact).to_json())
    assert (document["target"], document["model"]) == ("cpu", "small")
    entry = document["entry_points"][1]
    assert (entry["name"], entry["rows"], entry["copies"], entry["fills"]) == ("step_rows3", 3, 0, 0)
    assert (entry["transient_bytes"], entry["in_place"]) == (192, [CACHE])
    assert entry["dispatches"][0] == {
        "name": "write_cache",
        "kind": "kernel",
        "workgroups": [4, 1, 1],
        "bytes_read": 4096 + 24,
        "bytes_written": 4096,
        "bytes_bound": 2 * 4096 + 24,
        "bindings": [
            {"name": CACHE, "access": "read_write", "bytes": 4096, "bound_bytes": 2 * 4096, "parts": {}},
            {"name": "tokens", "access": "read", "bytes": 24, "bound_bytes": None, "parts": {}},
        ],
        "floor_seconds": None,
        "layer": 0,
        "level": 1,
        "after": [],
        "kernel": 0,
        "waves": None,
        "rounds": None,
    }
    assert [d["kind"] for d in entry["dispatches"]] == ["kernel", "compiled"]
    assert [(d["level"], d["after"], d["kernel"]) for d in entry["dispatches"]] == [(1, [], 0), (2, [0], None)]
    assert entry["levels"] == 2
    assert document["predicted_layers"] == [], "a CPU is not predicted"


def test_floor_is_bytes_over_bandwidth():
    dispatch = json.loads(Inspection(on_gpu()).to_json())["entry_points"][1]["dispatches"][0]
    assert dispatch["floor_seconds"] == pytest.approx((4096 + 24 + 4096) / 8e12)


def test_grid_in_waves_and_rounds_of_the_chip():
    document = json.loads(Inspection(on_gpu()).to_json())
    dispatch = document["entry_points"][1]["dispatches"][0]
    # 4 workgroups of 8 waves; two of them fit on each of 4 compute units.
    assert (dispatch["waves"], dispatch["rounds"]) == (32, 0.5)
    assert document["kernels"][0]["instructions"]["loads"] == {"4": 7, "16": 28}
    assert document["kernels"][0]["occupancy"]["limited_by"] == "vector registers"


def test_predicted_layers_of_both_chips():
    (layer, *_) = json.loads(Inspection(on_gpu()).to_json())["predicted_layers"]
    moved = 4096 + 8 + 4096 + 4096 + 64
    assert (layer["layer"], layer["rows"], layer["dispatches"], layer["levels"]) == (0, 1, 2, 2)
    assert layer["bytes"] == moved
    for chip, bandwidth in (("MI355X", 8.0e12), ("MI300X", 5.3e12)):
        assert layer["chips"][chip]["floor_seconds"] == pytest.approx(moved / bandwidth)
        assert layer["chips"][chip]["predicted_seconds"] == pytest.approx(2 * 4e-6 + moved / bandwidth)


def test_needs_only_the_manifest(step_artifact):
    (step_artifact / "module.vmfb").unlink()
    assert inspect(step_artifact).manifest.model.name == "small"


def test_tables_show_every_dispatch():
    text = text_of(on_gpu())
    assert text.count("write_cache ") >= 2
    assert text.count("sum_cache") == 2
    assert "exempted: fill (scores start at <minus infinity>)" in text
    assert CACHE in text
    assert text.count("2 dispatches in 2 levels") == 2
    assert "8.22 kB" in text, "the cache is bound whole"
    assert max(map(len, text.splitlines())) <= 140


def test_tables_show_what_kernels_take_and_hold():
    text = text_of(on_gpu())
    for shown in ("96 (32)", "2 × 8 waves", "vector", "1,234", "28 × 16 B", "7 × 4 B", "8.19 kB"):
        assert shown in text, shown
    assert "ptxas" not in text


def running(kernels, *entries):
    """Of each entry, every dispatch that is ours runs the kernel of the given number."""
    changed = []
    for entry, number in entries:
        ours = [d if d.kernel is None else replace(d, kernel=number) for d in entry.audit.dispatches]
        changed.append(replace(entry, audit=replace(entry.audit, dispatches=tuple(ours))))
    return replace(on_gpu(), entry_points=tuple(changed), kernels=kernels)


def test_each_kernel_is_told_apart_by_what_runs_it():
    of_many, of_one = replace(gpu_kernel(), sha256="11" * 32), gpu_kernel()
    apart = running((of_many, of_one), (step_entry(3), 0), (step_entry(1), 1))
    assert [(used.record, used.rows) for used in used_kernels(apart)] == [(of_one, (1,)), (of_many, (3,))]
    together = running((of_one,), (step_entry(3), 0), (step_entry(1), 0))
    assert [(used.dispatch, used.rows) for used in used_kernels(together)] == [("write_cache", (1, 3))]
    row = re.search("write_cache.*", text_of(together)[text_of(together).index("what a launch takes") :]).group()
    assert [cell.strip() for cell in row.split("│")][:2] == ["write_cache", "1, 3"]
    assert '<td class="right number">1, 3</td>' in Inspection(together).to_html()


def test_long_names_are_broken_on_the_page():
    name = "add_rms_norm_group_quant+gemm_fp8_blockscale, <unnamed>"
    cell = name_cell(name, 'of "a.hip"')
    assert "add_rms_norm_group_quant+<wbr>gemm_fp8_blockscale, &lt;unnamed&gt;" in cell
    assert 'title="of &quot;a.hip&quot;"' in cell and "title" not in name_cell(name)
    assert "td.name { white-space: normal;" in STYLE


def test_registers_of_an_assembled_kernel():
    for shown in (text_of(on_gpu(gpu_kernel(ASSEMBLED))), Inspection(on_gpu(gpu_kernel(ASSEMBLED))).to_html()):
        assert "registers are ptxas's; the driver assembles the PTX again" in shown.replace("&#x27;", "'")
        assert "154" in shown and "154 (" not in shown and "2 × 8 waves" in shown


def test_a_prediction_says_that_it_is_none_of_measurement():
    for shown in (text_of(on_gpu()), Inspection(on_gpu()).to_html()):
        assert "A model, not a measurement: 4 µs for every dispatch" in " ".join(shown.split())
        assert "Published elsewhere" not in shown, "another model's trace says nothing of this one"


class Outside(HTMLParser):
    """Collects what a page would load from elsewhere, and checks that tags are closed."""

    VOID = frozenset({"meta", "br", "wbr", "link", "img", "input", "hr"})

    def __init__(self):
        super().__init__()
        self.loads, self.open = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "srcset") or (name == "href" and not value.startswith("#")):
                self.loads.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_self_contained():
    page = Inspection(on_gpu()).to_html()
    parser = Outside()
    parser.feed(page)
    assert (parser.loads, parser.open) == ([], [])
    assert not re.search(r"url\(|@import|https?://", page)
    for key in ("0-0", "0-1", "1-0", "1-1"):
        assert page.count(f'data-key="{key}"') == 2
        assert page.count(f'id="detail-{key}"') == 1
    assert "&lt;minus infinity&gt;" in page


def shares_of(text: str) -> list[float]:
    return [float(share) for share in re.findall(r"--share:([0-9.]+)", text)]


def test_page_widths_follow_the_bytes():
    first = 4096 + 8 + 4096
    second = 4096 + 64
    expected = [first / (first + second), second / (first + second)]
    assert shares_of(Inspection(on_gpu()).to_html())[:2] == pytest.approx(expected, abs=1e-5)


def test_a_level_is_a_column_shared_by_its_dispatches():
    entry = step_entry(1)
    write, read = entry.audit.dispatches
    # The second of two readers moves a third of what the first does, and the level as much as the writer.
    more, less = replace(read, bytes_read=6000, bytes_written=0), replace(read, bytes_read=2000, bytes_written=0)
    audit = replace(entry.audit, dispatches=(replace(write, bytes_read=8000, bytes_written=0), more, less))
    page = Inspection(replace(on_gpu(), entry_points=(replace(entry, audit=audit),))).to_html()
    assert shares_of(page) == pytest.approx([0.5, 0.5], abs=1e-5)
    parts = [float(part) for part in re.findall(r"--part:([0-9.]+)", page)]
    assert parts == pytest.approx([1, 0.75, 0.25], abs=1e-5)


def test_a_long_step_is_drawn_in_lines():
    entry = step_entry(1)
    write, read = entry.audit.dispatches
    chain = tuple(replace(d, after=(i - 1,) if i else ()) for i, d in enumerate((write, read) * 100))
    audit = replace(entry.audit, dispatches=chain)
    page = Inspection(replace(on_gpu(), entry_points=(replace(entry, audit=audit),))).to_html()
    lines = page.split('<div class="strip">')[1:]
    assert [line.count('class="level"') for line in lines] == [48, 48, 48, 48, 8]
    assert [sum(shares_of(line)) for line in lines] == pytest.approx([1, 1, 1, 1, 8 / 48], abs=1e-4)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_234_567, "1.23 MB"), (5 * 10**12, "5e+03 GB")],
)
def test_bytes_in_words(count, text):
    assert format_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0, "0.000 µs"), (4.6e-9, "0.005 µs"), (2.5e-6, "2.50 µs"), (1e-3, "1000 µs")],
)
def test_seconds_in_words(seconds, text):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(("ratio", "text"), [(None, ""), (0.0, "0.00"), (0.004, "< 0.01"), (2.257, "2.26")])
def test_ratios_in_words(ratio, text):
    assert format_ratio(ratio) == text


def test_widths_in_words():
    assert format_widths({"4": 7, "16": 28, "2": 1}) == "28 × 16 B, 7 × 4 B, 1 × 2 B"
    assert format_widths({}) == "–"
