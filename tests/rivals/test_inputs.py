"""Parameters and batches as torch sees them, against those that the artifact runs on."""

import numpy as np
import pytest
import torch

from predecode.pipelines.artifact import read_manifest
from predecode.pipelines.bench.batch import cache_contents, make_batch, step_arguments
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.page_layout import CACHE_PAGES
from tests.export.conftest import export_tiny
from tests.rivals.inputs import CachePools, plain_caches
from tests.rivals.parameters import Archive, ArtifactLayers, only_layer
from tests.rivals.torch_weights import row_major, to_bfloat16

CPU = torch.device("cpu")


def test_parameters_are_those_of_the_model(artifact):
    manifest = read_manifest(artifact)
    layers = ArtifactLayers.of(artifact, manifest)
    assert layers.layers == (1, 3)
    from predecode.export.models import find_model
    from predecode.export.weights import load_into

    segment = layers.load(3, CPU)
    expected = {name: torch.empty_like(tensor) for name, tensor in segment.state_dict().items()}
    model = find_model(manifest.model.name, manifest.model.seed)
    load_into(expected, model.weights, model.config, layers.shard, layers.element_format)
    for name, tensor in segment.state_dict().items():
        assert torch.equal(tensor.view(torch.uint8), expected[name].view(torch.uint8)), name


def test_a_parameter_of_another_size_is_refused(artifact):
    archive = Archive(artifact / "parameters.irpa")
    with pytest.raises(PredecodeError, match="has nothing for parameter"):
        archive.tensor("layers.2.input_norm.weight", torch.empty(256, dtype=torch.bfloat16))
    with pytest.raises(PredecodeError, match=r"has 512 bytes .* expected 514"):
        archive.tensor("layers.1.input_norm.weight", torch.empty(257, dtype=torch.bfloat16))


def test_unpacked_weights_follow_the_index_map(torch_layers):
    module = only_layer(torch_layers.artifact.load(1, CPU)).attention.qkv_a
    weight, stored = row_major(module), module.values.flatten().view(torch.uint8)
    dequantized = to_bfloat16(weight)
    columns = weight.values.shape[1]
    for row, column in ((0, 0), (1, 17), (200, 131), (319, 255)):
        offset = row // 16 * 16 * columns + column // 16 * 256 + row % 16 * 16 + column % 16
        assert weight.values.view(torch.uint8)[row, column] == stored[offset]
        value = weight.values[row, column].float() * module.scales[row // 128, column // 128]
        assert dequantized[row, column] == value.bfloat16()


def test_cut_down_caches_hold_what_the_rows_see(artifact):
    manifest = read_manifest(artifact)
    step = CachePools(manifest).step_inputs(4, "ragged", CPU)
    batch = make_batch(manifest.geometry, 4, "ragged")
    arguments = step_arguments(manifest, batch)
    specs = {spec.name: spec for spec in manifest.entry_points[0].arguments}
    caches = plain_caches(step)
    for kind in ("indexer", "latent"):
        spec = specs[f"layers.1.{kind}_cache"]
        pool, page = cache_contents(spec, manifest.target.element_format), CACHE_PAGES[spec.layout]
        given = (caches.keys.flatten(0, 1) if kind == "indexer" else caches.latents).view(torch.int8).numpy()
        for row, length in enumerate(batch.lengths):
            positions = np.arange(length)
            theirs = arguments["block_table"][row, positions // 64] * 64 + positions % 64
            ours = step.block_table[row].numpy()[positions // 64] * 64 + positions % 64
            np.testing.assert_array_equal(given[ours], page.elements(pool)[theirs])
            if kind == "indexer":
                np.testing.assert_array_equal(caches.key_scales.flatten()[ours], page.scales(pool)[theirs])
            assert step.slots[row] == ours[-1], "a row's own token is its last"
    assert len(step.indexer_pages) == len(step.latent_pages) == batch.pages(manifest.geometry)
    np.testing.assert_array_equal(step.hidden.float().numpy(), arguments["hidden"].astype(np.float32))


@pytest.mark.parametrize(
    ("layers", "reason"), [((1, 2), "layer 2 has no experts or no indexer"), (None, "is a whole step")]
)
def test_other_artifacts_are_refused(tmp_path, layers, reason):
    folder = export_tiny(tmp_path / "artifact", layers=layers, rows=(1,), pages=4)
    with pytest.raises(PredecodeError, match=reason):
        ArtifactLayers.of(folder, read_manifest(folder))
