"""manifest.json: what is written is read back, and what does not fit is named."""

import json

import pytest

from predecode.pipelines.manifest import FileRecord, Manifest
from predecode.pipelines.records import RecordError
from tests.pipelines.small_artifact import CACHE, manifest, step_entry


@pytest.fixture
def document() -> dict:
    return json.loads(whole().to_json())


def whole() -> Manifest:
    from dataclasses import replace

    files = {name: FileRecord("ab" * 32, 1) for name in ("module.vmfb", "parameters.irpa")}
    return replace(manifest((step_entry(1), step_entry(3)), None), files=files)


def test_round_trip():
    assert Manifest.from_json(whole().to_json()) == whole()


def test_text_is_deterministic():
    text = whole().to_json()
    assert text == Manifest.from_json(text).to_json()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def test_segments_and_row_counts():
    assert whole().row_counts == (1, 3)
    assert [entry.name for entry in whole().segments(3)] == ["step_rows3"]


def keys(value, path=()):
    """Paths of all keys of all objects of the document."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield (*path, key)
            yield from keys(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from keys(value[0], (*path, 0))


FREE_KEYS = {"vocab_size", "iree-base-compiler", "module.vmfb", "parameters.irpa"}
OPTIONAL_KEYS = {"in_place", "exempted", "golden", "bound_bytes", "parts", "kernel", "waves_per_workgroup", "occupancy"}
OPTIONAL_KEYS |= {"resources", "instructions", "bandwidth_probe"}


def test_every_missing_key_is_named(document):
    checked = 0
    for path in list(keys(document)):
        if path[-1] in FREE_KEYS | OPTIONAL_KEYS or path[-1] in ("files", "format_version"):
            continue
        broken = json.loads(json.dumps(document))
        parent = broken
        for step in path[:-1]:
            parent = parent[step]
        del parent[path[-1]]
        with pytest.raises(RecordError, match=rf"{path[-1]}' is missing"):
            Manifest.from_json(json.dumps(broken))
        checked += 1
    assert checked > 40


def change(document, value, *path):
    parent = document
    for step in path[:-1]:
        parent = parent[step]
    parent[path[-1]] = value


CHANGES = [
    (("1",), ("geometry", "pages"), "geometry.pages is a str"),
    ((True,), ("geometry", "pages"), "geometry.pages is a bool"),
    ((1.5,), ("entry_points", 0, "rows"), r"entry_points\[0\].rows is a float"),
    ((0,), ("entry_points", 0, "rows"), "rows is 0"),
    (([],), ("entry_points",), "entry_points is empty"),
    (({},), ("entry_points",), "entry_points is a dict"),
    (("step_rows3",), ("entry_points", 0, "name"), "not unique"),
    (("scratch",), ("entry_points", 0, "arguments", 0, "role"), "tokens has role 'scratch'"),
    (("nothing",), ("entry_points", 0, "results", 1, "in_place"), "said to reuse 'nothing'"),
    (("tokens",), ("entry_points", 0, "results", 1, "in_place"), "no argument of the same shape"),
    (("magic",), ("entry_points", 0, "audit", "dispatches", 0, "kind"), "has kind 'magic'"),
    (("other.vmfb",), ("module",), "'other.vmfb' is used but not listed"),
    ((2,), ("format_version",), "format version 2 was written"),
    ((None,), ("format_version",), "format version None was written"),
    (("x",), ("surprise",), "unknown key 'surprise'"),
    (("x",), ("target", "surprise"), "unknown key 'target.surprise'"),
]


@pytest.mark.parametrize(("value", "path", "message"), CHANGES, ids=[message for *_, message in CHANGES])
def test_wrong_values_are_named(document, value, path, message):
    change(document, value[0], *path)
    with pytest.raises(RecordError, match=message):
        Manifest.from_json(json.dumps(document))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null"])
def test_other_documents_are_refused(text):
    with pytest.raises(RecordError):
        Manifest.from_json(text)


def test_integers_are_accepted_for_floats(document):
    change(document, 8_000_000_000_000, "target", "memory_bandwidth")
    assert Manifest.from_json(json.dumps(document)).target.memory_bandwidth == 8e12


def test_optional_keys_may_be_left_out(document):
    del document["golden"]
    del document["entry_points"][0]["audit"]["exempted"]
    assert Manifest.from_json(json.dumps(document)).golden is None
    assert document["entry_points"][0]["results"][1]["in_place"] == CACHE
