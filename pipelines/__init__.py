"""Running artifacts: load, step, compare, inspect. Needs the IREE runtime and NumPy, never torch."""

from predecode.pipelines.artifact import Artifact
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden_check import compare
from predecode.pipelines.inspection import inspect
from predecode.pipelines.pages import PagedSequence, PagePool
from predecode.pipelines.prediction import predicted_layer
from predecode.pipelines.running import run
from predecode.pipelines.session import DecodeSession

__all__ = [
    "Artifact",
    "DecodeSession",
    "PagePool",
    "PagedSequence",
    "PredecodeError",
    "compare",
    "inspect",
    "predicted_layer",
    "run",
]
