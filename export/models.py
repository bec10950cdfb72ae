"""Finding a model: a preset with seeded weights, or a checkpoint folder."""

from dataclasses import dataclass
from pathlib import Path

from predecode.export.config import ModelConfig
from predecode.export.presets import PRESETS
from predecode.export.weights import SafetensorsCheckpoint, SeededWeights, TensorSource
from predecode.pipelines.errors import PredecodeError


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A model's config and weights; ``seed`` is None for a checkpoint's."""

    name: str
    config: ModelConfig
    weights: TensorSource
    seed: int | None


def find_model(name: str, seed: int) -> ModelSource:
    """The preset called ``name``, else the Hugging Face checkpoint in the folder ``name``."""
    if name in PRESETS:
        return ModelSource(name, PRESETS[name], SeededWeights(PRESETS[name], seed), seed)
    folder = Path(name)
    if not folder.is_dir():
        raise PredecodeError(
            f"model {name!r} is neither a preset ({', '.join(PRESETS)}) nor a folder; "
            "give one of these, or the folder of a Hugging Face checkpoint"
        )
    config = ModelConfig.from_folder(folder)
    return ModelSource(folder.resolve().name, config, SafetensorsCheckpoint(folder), None)
