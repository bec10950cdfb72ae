"""Weights: Hugging Face checkpoints (or seeded numbers) to the parameters that one rank's modules read."""

from predecode.export.weights.safetensors_checkpoint import SafetensorsCheckpoint
from predecode.export.weights.seeded import SeededWeights
from predecode.export.weights.source import DictSource, TensorFacts, TensorSource
from predecode.export.weights.transfer import load_into, parameter_spans, write_parameters

__all__ = [
    "DictSource",
    "SafetensorsCheckpoint",
    "SeededWeights",
    "TensorFacts",
    "TensorSource",
    "load_into",
    "parameter_spans",
    "write_parameters",
]
