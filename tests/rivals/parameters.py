"""An artifact's layers as torch modules whose parameters are those of its archive."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import iree.runtime as rt
import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.targets import TARGETS
from predecode.export.config import ModelConfig
from predecode.export.model.layer import Layer
from predecode.export.model.segments import Segment, build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.models import find_model
from predecode.export.shard import Shard
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Manifest


@dataclass(frozen=True, slots=True)
class ArtifactLayers:
    """The layers that an artifact chains, to be loaded one at a time: all of them may not fit twice."""

    config: ModelConfig
    layers: tuple[int, ...]
    shard: Shard
    element_format: ElementFormat
    geometry: Geometry
    archive: "Archive"

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> "ArtifactLayers":
        """Raises a `PredecodeError` unless the artifact chains MoE layers that each have an indexer."""
        model = manifest.model
        config = find_model(model.name, model.seed).config
        layers = model.layers or ()
        for layer in layers:
            if not config.is_sparse(layer) or not config.has_indexer(layer):
                raise PredecodeError(f"layer {layer} has no experts or no indexer; export layers that have both")
        if not layers or 0 in layers:
            raise PredecodeError(f"{folder} is a whole step; export it with --layers, without layer 0")
        if config.n_group != 1:
            raise PredecodeError(f"{model.name} chooses experts by group, which the torch layer here does not")
        if manifest.parameters is None:
            raise PredecodeError(f"{folder} has no parameters; export it again")
        return cls(
            config=config,
            layers=layers,
            shard=Shard(model.tensor_parallel, model.rank),
            element_format=TARGETS[manifest.target.name].element_format,
            geometry=Geometry(manifest.geometry.max_context, manifest.geometry.pages),
            archive=Archive(folder / manifest.parameters.file),
        )

    def load(self, layer: int, device: torch.device) -> Segment:
        """``layer`` alone, as a segment from hidden and residual to hidden and residual."""
        with torch.device("meta"):
            (segment,) = build_segments(self.config, (layer,), self.shard, "none", self.element_format, self.geometry)
        state = {name: self.archive.tensor(name, like).to(device) for name, like in segment.state_dict().items()}
        segment.load_state_dict(state, assign=True)
        return segment


def only_layer(segment: Segment) -> Layer:
    """The layer of a segment that `ArtifactLayers.load` made."""
    (layer,) = segment.layers.values()
    return layer


class Archive:
    """Tensors of an .irpa file, mapped and not copied."""

    def __init__(self, path: Path):
        self.path = path
        index = rt.ParameterIndex()
        index.load(str(path))
        self._entries = dict(index.items())

    def tensor(self, name: str, like: torch.Tensor) -> torch.Tensor:
        """Parameter ``name`` with the shape and dtype of ``like``, on the CPU; only to be read."""
        entry = self._entries.get(name)
        if entry is None or entry.length != like.nbytes:
            found = "nothing" if entry is None else f"{entry.length} bytes"
            raise PredecodeError(
                f"{self.path} has {found} for parameter {name}, expected {like.nbytes} bytes; export it again"
            )
        with warnings.catch_warnings():
            # The file is mapped to be read only, which torch cannot express.
            warnings.filterwarnings("ignore", "The given buffer is not writable")
            data = torch.frombuffer(entry.file_view, dtype=torch.uint8)
        return data.view(like.dtype).reshape(like.shape)
