"""What the audit tells of dependencies, parameters and bound ranges, on a compiled module and on a small model."""

import json

import pytest
import torch

from predecode.pipelines import inspect
from predecode.pipelines.artifact import read_manifest
from tests.export.test_audit import audit

pytestmark = pytest.mark.xdist_group("exporter")


def two_products_and_their_sum(x, y, z):
    return (x @ y).softmax(-1) + (x @ z).softmax(-1) @ y


def test_levels_of_compiled_dispatches():
    arguments = torch.zeros(8, 64), torch.zeros(64, 64), torch.zeros(64, 64)
    report = audit(two_products_and_their_sum, ("x", "y", "z"), *arguments)
    last = len(report.dispatches) - 1
    assert last >= 2
    readers = {i for i, d in enumerate(report.dispatches) if {"y", "z"} & {b.name for b in d.bindings}}
    assert report.dispatches[min(readers)].after == ()
    assert max(report.levels) == report.levels[last], "everything ends in the sum"
    assert all(max(d.after, default=-1) < i for i, d in enumerate(report.dispatches))


@pytest.fixture(scope="module")
def entry(tiny_artifact):
    return next(e for e in read_manifest(tiny_artifact).entry_points if e.rows == 4)


def by_name(entry, name):
    return next((i, d) for i, d in enumerate(entry.audit.dispatches) if name in d.name)


def test_parameters_have_the_names_of_the_archive(entry):
    names = {b.name for d in entry.audit.dispatches for b in d.bindings}
    assert {"embedding.weight", "layers.1.mlp.experts.gate_up.values", "rope_table", "output.weight"} <= names
    assert not any("__" in name for name in names)


def test_attention_needs_the_selection_and_the_cache_write(entry):
    index, attention = by_name(entry, "sparse_mla")
    dispatches, levels = entry.audit.dispatches, entry.audit.levels
    before = {i for i in attention.after}
    selection = by_name(entry, "topk_slots")[0]
    writers = {
        i
        for i in before
        if any(b.name.endswith("latent_cache") and b.access == "read_write" for b in dispatches[i].bindings)
    }
    assert selection in before and writers
    assert levels[index] == 1 + max(levels[i] for i in before)
    # The indexer's chain and the attention's query do not need each other.
    scores = by_name(entry, "paged_mqa_logits")[0]
    assert scores not in before


def test_dispatches_of_one_level_need_nothing_of_each_other(entry):
    levels = entry.audit.levels
    for i, dispatch in enumerate(entry.audit.dispatches):
        assert all(levels[before] < levels[i] for before in dispatch.after)
    assert max(levels) < len(levels), "the indexer's chain stands beside the attention's"


def test_a_cache_is_bound_whole_and_needed_in_part(entry):
    _, attention = by_name(entry, "sparse_mla")
    (cache,) = [b for b in attention.bindings if b.name.endswith("latent_cache")]
    pages = next(s for s in entry.arguments if s.name == cache.name)
    assert cache.bound_bytes == pages.shape[0] * pages.shape[1] > cache.bytes
    _, head = len(entry.audit.dispatches) - 1, entry.audit.dispatches[-1]
    weight = next(b for b in head.bindings if b.name == "output.weight")
    assert weight.bound_bytes is None and weight.bytes == 512 * 256 * 2


def test_inspect_gives_dispatches_their_layers(tiny_artifact):
    document = json.loads(inspect(tiny_artifact).to_json())
    layers = [d["layer"] for d in document["entry_points"][1]["dispatches"]]
    assert layers[0] is None and layers[-1] is None
    inside = [layer for layer in layers if layer is not None]
    assert inside == sorted(inside) and set(inside) == {0, 1, 2, 3}
    assert layers.count(None) <= 4
