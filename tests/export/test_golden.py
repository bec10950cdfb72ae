"""Golden steps: made again they are the same, and no row of them chooses between near ties."""

import numpy as np
import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN
from predecode.export import golden as golden_module
from predecode.export.golden import MARGINS, TRUE_SIZE_MARGINS, make_golden, make_golden_at, tolerances
from predecode.export.model.segments import build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.near_ties import Margins, NearTie, RefuseNearTies
from predecode.export.presets import TINY, TINY_DEEPSEEK
from predecode.export.shard import SINGLE
from predecode.export.weights import SeededWeights, load_into
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden_caches import NO_TOKEN

GEOMETRY = Geometry(256, 32)


def segments(config, reduce="external", layers=(0, 1)):
    made = build_segments(config, layers, SINGLE, reduce, E4M3FN, GEOMETRY)
    for segment in made:
        load_into(segment.state_dict(), SeededWeights(config, 0), config, SINGLE, E4M3FN)
    return made


def made(parts, seed=0):
    return make_golden(parts, (4,), GEOMETRY, seed, lambda step, of: None)


@pytest.fixture(scope="module", params=[TINY, TINY_DEEPSEEK], ids=["tiny", "tiny-deepseek"])
def parts(request):
    return segments(request.param)


@pytest.fixture(scope="module")
def golden(parts):
    return made(parts)


def test_a_seed_gives_one_golden(parts, golden):
    for seed, equal in ((0, True), (1, False)):
        initial, steps = made(parts, seed)
        assert np.array_equal(initial.tokens, golden[0].tokens) == equal
        for step, other in zip(steps, golden[1], strict=True):
            for one, two in zip(step.segments, other.segments, strict=True):
                both = zip(one.results.values(), two.results.values(), strict=True)
                assert all(np.array_equal(a, b) for a, b in both) == equal


def run_again(parts, golden, margins):
    """The golden's steps once more under `RefuseNearTies`, from its own inputs; raises `NearTie`."""
    initial, steps = golden
    caches = {
        spec.name: torch.from_numpy(initial.pages(spec.name, spec.layout, "e4m3fn"))
        for segment in parts
        for spec in segment.arguments(1)
        if spec.role == "cache"
    }
    own = np.arange(len(initial.tokens)) + 1000
    identities = torch.from_numpy(np.where(initial.tokens == NO_TOKEN, own, initial.tokens))
    for step in steps:
        for segment, stored in zip(parts, step.segments, strict=True):
            values = {name: torch.from_numpy(array.view(np.uint8)) for name, array in stored.inputs.items()}
            arguments = [
                caches[spec.name] if spec.role == "cache" else values[spec.name].view(spec.dtype).reshape(spec.shape)
                for spec in segment.arguments(step.rows)
            ]
            if "slot_mapping" in stored.inputs:
                slots = stored.inputs["slot_mapping"][stored.inputs["slot_mapping"] >= 0]
                identities[slots] = torch.from_numpy(own[slots])
            with torch.no_grad(), RefuseNearTies(margins, identities):
                results = segment(*arguments)
            caches |= {
                spec.name: tensor
                for spec, tensor in zip(segment.results(step.rows), results, strict=True)
                if spec.role == "cache"
            }


def test_no_row_has_a_near_tie(parts, golden):
    run_again(parts, golden, MARGINS)


def test_goldens_of_true_sizes_have_wider_margins(parts, golden, monkeypatch):
    topk = parts[0].config.index_topk
    monkeypatch.setattr(golden_module, "TRUE_SIZE_HIDDEN", parts[0].config.hidden_size)
    run_again(parts, make_golden_at(parts, [[topk + 70] * 4], GEOMETRY, 0, lambda step, of: None), TRUE_SIZE_MARGINS)
    with pytest.raises(NearTie):
        run_again(parts, golden, TRUE_SIZE_MARGINS)


@pytest.mark.parametrize("margins", [Margins(experts=0.3, tokens=0.0), Margins(experts=0.0, tokens=0.3)])
def test_wide_margins_are_not_met_by_chance(parts, golden, margins):
    with pytest.raises(NearTie):
        run_again(parts, golden, margins)


def test_rows_select_some_of_their_tokens_and_more_than_one_kind(parts, golden):
    """Selections end among copies, which must not all be of one token."""
    initial, steps = golden
    lengths = np.concatenate([step.segments[0].inputs["lengths"] for step in steps])
    assert (lengths > parts[0].config.index_topk).any()
    assert len(np.unique(initial.tokens[initial.tokens != NO_TOKEN])) > 4


def test_scores_that_are_all_alike_are_refused(monkeypatch):
    monkeypatch.setattr(golden_module, "MOST_DRAWS", 3)
    parts = segments(TINY, layers=(1,))
    parts[1].layers["1"].mlp.router.weight.zero_()
    parts[1].layers["1"].mlp.router.correction_bias.zero_()
    with pytest.raises(PredecodeError, match="layer_1_mlp: after 3 draws some of 4 rows still choose"):
        made(parts)


def test_caches_of_the_first_layer_are_held_closer():
    halves, whole = tolerances(segments(TINY)), tolerances(segments(TINY, "none", None))
    first, *later = (whole[f"layers.{layer}.latent_cache"] for layer in range(4))
    assert first == halves["layers.0.latent_cache"] == halves["layers.1.latent_cache"]
    assert all(tolerance.fraction > first.fraction for tolerance in later)
    assert set(whole) == {spec.name for spec in segments(TINY, "none", None)[0].results(1)}
