"""Made-up input for the steps of any artifact: to see that it runs, and how fast."""

import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Manifest, TensorSpec
from predecode.pipelines.page_layout import PAGE_TOKENS
from predecode.pipelines.pages import PADDING_SLOT, PagedSequence, PagePool, RowPlacement
from predecode.pipelines.step_inputs import caller_arguments

_SEED = 0


class MadeUpSteps:
    """Steps of ``rows`` rows that extend one sequence per row, which has ``context`` tokens already.

    Those tokens have places in the caches, but nothing has been written there.
    ``tokens`` int64 [rows] are those of the next step; set them to decode. Activations are seeded noise.
    """

    def __init__(self, manifest: Manifest, rows: int, context: int = 0):
        self.tokens = np.arange(1, rows + 1, dtype=np.int64) % manifest.model.config.get("vocab_size", 2**31)
        self._wanted = caller_arguments(manifest.segments(rows))
        self._pool = PagePool(manifest.geometry)
        self._sequences = [PagedSequence() for _ in range(rows)]
        self._noise = np.random.default_rng(_SEED)
        for _ in range(context):
            self._pool.append(self._sequences)

    def next_arguments(self) -> dict[str, np.ndarray]:
        """Arguments of the next step; raises a `PredecodeError` when the pool or the context is full."""
        placement = self._pool.append(self._sequences)
        return {
            name: made_up_argument(spec, placement, self.tokens, self._noise) for name, spec in self._wanted.items()
        }


def made_up_argument(
    spec: TensorSpec, placement: RowPlacement, tokens: np.ndarray, noise: np.random.Generator
) -> np.ndarray:
    """A value for one argument of a step: known from ``placement`` and ``tokens``, else normal noise."""
    known = placement.as_arguments() | {"tokens": tokens}
    if spec.name in known:
        return known[spec.name]
    if spec.name == "selected_slots":
        return _latest_slots(spec, placement)
    if np.dtype(spec.dtype).kind == "i":
        raise PredecodeError(f"the artifact takes {spec.name!r}, which cannot be made up; step it from Python")
    return noise.standard_normal(spec.shape, np.float32).astype(np.dtype(spec.dtype))


def _latest_slots(spec: TensorSpec, placement: RowPlacement) -> np.ndarray:
    """int32 [rows, topk]: what an indexer selects where the context is at most topk, the latest otherwise."""
    slots = np.full(spec.shape, PADDING_SLOT, np.int32)
    for row, length in enumerate(placement.lengths):
        positions = np.arange(max(0, length - spec.shape[1]), length)
        pages = placement.block_table[row, positions // PAGE_TOKENS]
        slots[row, : len(positions)] = pages * PAGE_TOKENS + positions % PAGE_TOKENS
    return slots
