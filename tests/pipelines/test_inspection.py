"""What `inspect` tells: figures of the manifest as JSON, as tables and as a page."""

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from predecode.pipelines import inspect
from predecode.pipelines.inspection import Inspection, format_bytes, format_seconds
from predecode.pipelines.manifest import Exemption, TargetRecord
from tests.pipelines.small_artifact import CACHE, manifest, step_entry


def on_gpu():
    entry = step_entry(3)
    audit = replace(entry.audit, fills=1, exempted=(Exemption("fill", "scores start at <minus infinity>"),))
    whole = manifest((step_entry(1), replace(entry, audit=audit)), None)
    return replace(whole, target=TargetRecord("gfx950", "hip", "gfx950", "e4m3fn", 8e12))


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
        "floor_seconds": None,
    }
    assert [d["kind"] for d in entry["dispatches"]] == ["kernel", "compiled"]


def test_floor_is_bytes_over_bandwidth():
    dispatch = json.loads(Inspection(on_gpu()).to_json())["entry_points"][1]["dispatches"][0]
    assert dispatch["floor_seconds"] == pytest.approx((4096 + 24 + 4096) / 8e12)


def test_needs_only_the_manifest(step_artifact):
    (step_artifact / "module.vmfb").unlink()
    assert inspect(step_artifact).manifest.model.name == "small"


def test_tables_show_every_dispatch():
    output = io.StringIO()
    Inspection(on_gpu()).print_to(Console(file=output, width=140))
    text = output.getvalue()
    assert text.count("write_cache ") >= 2
    assert text.count("sum_cache") == 2
    assert "exempted: fill (scores start at <minus infinity>)" in text
    assert CACHE in text


class Outside(HTMLParser):
    """Collects what a page would load from elsewhere, and checks that tags are closed."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

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


def test_page_widths_follow_the_bytes():
    page = Inspection(on_gpu()).to_html()
    shares = [float(share) for share in re.findall(r"--share:([0-9.]+)", page)[:2]]
    first = 4096 + 8 + 4096
    second = 4096 + 64
    assert shares == pytest.approx([first / (first + second), second / (first + second)], abs=1e-5)


def test_a_long_step_is_drawn_in_lines():
    entry = step_entry(1)
    audit = replace(entry.audit, dispatches=entry.audit.dispatches * 100)
    page = Inspection(replace(on_gpu(), entry_points=(replace(entry, audit=audit),))).to_html()
    lines = page.split('<div class="strip">')[1:]
    assert [line.count('class="block') for line in lines] == [48, 48, 48, 48, 8]
    widths = [sum(float(share) for share in re.findall(r"--share:([0-9.]+)", line)) for line in lines]
    assert widths == pytest.approx([1, 1, 1, 1, 8 / 48], abs=1e-4)


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
