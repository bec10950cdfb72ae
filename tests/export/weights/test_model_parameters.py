"""The mapping makes exactly the parameters that the model's segments read."""

import pytest
import torch

from predecode.custom_kernels.formats import E4M3FN, E4M3FNUZ, FLOAT32
from predecode.export.model.segments import build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.presets import DEEPSEEK_V3_2, GLM_5_1, TINY, TINY_DEEPSEEK
from predecode.export.shard import Shard
from predecode.export.weights import DictSource, SeededWeights, TensorFacts, load_into
from predecode.export.weights.transfer import model_parameters

GEOMETRY = Geometry(max_context=256, pages=8)


@pytest.mark.parametrize("reduction", ["none", "external"])
@pytest.mark.parametrize("element_format", [E4M3FN, E4M3FNUZ, FLOAT32], ids=lambda f: f.name)
@pytest.mark.parametrize(
    ("config", "layers", "shard"),
    [
        (TINY, None, Shard()),
        (TINY, (1, 2), Shard(2, 1)),
        (TINY_DEEPSEEK, None, Shard(2, 0)),
        (GLM_5_1, (0, 3), Shard(8, 7)),
        (DEEPSEEK_V3_2, (0, 3), Shard(8, 0)),
    ],
    ids=["tiny", "tiny-layers", "tiny-deepseek", "glm-5.1", "deepseek-v3.2"],
)
def test_same_names_shapes_and_dtypes(config, layers, shard, element_format, reduction):
    with torch.device("meta"):
        segments = build_segments(config, layers, shard, reduction, element_format, GEOMETRY)
    read = {
        name: TensorFacts(tuple(tensor.shape), tensor.dtype)
        for segment in segments
        for name, tensor in segment.state_dict().items()
    }
    parts = model_parameters(DictSource({}), config, layers, shard, element_format, GEOMETRY.max_context)
    made = {name: facts for part in parts for name, facts in part.outputs.items()}
    assert made == read


def test_every_segment_is_filled():
    for segment in build_segments(TINY, None, Shard(2, 1), "external", E4M3FN, GEOMETRY):
        for tensor in segment.state_dict().values():
            tensor.view(torch.uint8).fill_(0xFF)
        load_into(segment.state_dict(), SeededWeights(TINY, 0), TINY, Shard(2, 1), E4M3FN)
        for name, tensor in segment.state_dict().items():
            assert torch.isfinite(tensor.float()).all(), name
