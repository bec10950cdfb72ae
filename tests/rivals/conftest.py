"""An artifact of two MoE layers with indexers, and a made-up batch at the sizes that the kernels ask for."""

from pathlib import Path

import pytest
import torch

from predecode.pipelines.artifact import read_manifest
from tests.export.conftest import export_tiny
from tests.rivals.inputs import CachePools, PlainCaches, StepInputs
from tests.rivals.layers import TorchLayers
from tests.rivals.parameters import ArtifactLayers
from tests.rivals.torch_layer import to_fp8

CPU = torch.device("cpu")
LENGTHS = (2100, 65)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("rivals") / "artifact", layers=(1, 3), rows=(4,), pages=16)


@pytest.fixture(scope="session")
def torch_layers(artifact) -> TorchLayers:
    manifest = read_manifest(artifact)
    return TorchLayers(ArtifactLayers.of(artifact, manifest), CachePools(manifest), (4,), "200", CPU)


@pytest.fixture(scope="session")
def large_step() -> StepInputs:
    """Two rows, one of more tokens than are selected; only what the kernel cases read."""
    counts = [-(-length // 64) for length in LENGTHS]
    pages = torch.randperm(sum(counts), generator=torch.Generator().manual_seed(0)).to(torch.int32)
    table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
    table[0], table[1, : counts[1]] = pages[: counts[0]], pages[counts[0] :]
    nothing = torch.empty(0)
    lengths = torch.tensor(LENGTHS, dtype=torch.int32)
    return StepInputs(nothing, nothing, nothing, nothing, lengths, table, nothing, nothing)


@pytest.fixture(scope="session")
def large_caches(large_step) -> PlainCaches:
    pages, random = sum(-(-length // 64) for length in LENGTHS), torch.Generator().manual_seed(1)
    return PlainCaches(
        keys=to_fp8(torch.randn(pages, 64, 128, generator=random)),
        key_scales=torch.rand(pages, 64, generator=random) + 0.5,
        latents=to_fp8(torch.randn(pages * 64, 576, generator=random)),
    )
