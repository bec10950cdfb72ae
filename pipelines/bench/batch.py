"""The step that is timed: where its rows are in the caches, what is in those, and what the rows hold."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.made_up_steps import made_up_argument
from predecode.pipelines.manifest import Geometry, Manifest, TensorSpec
from predecode.pipelines.page_layout import CACHE_PAGES
from predecode.pipelines.pages import RowPlacement
from predecode.pipelines.step_inputs import caller_arguments

RAGGED = "ragged"
DEFAULT_CONTEXT = 8192
_SEED = 11
_FP8 = {"e4m3fn": ml_dtypes.float8_e4m3fn, "e4m3fnuz": ml_dtypes.float8_e4m3fnuz}
# Random bytes are drawn once and repeated over a cache: a prime, so that pages differ.
_PATTERN_BYTES = 1_048_573
_KEY_SCALE = 2.0**-6  # as large as that of keys of unit variance


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one step. ``lengths`` are the tokens that each row sees, its own included."""

    context: str
    lengths: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many."""
        return len(self.lengths)

    def pages(self, geometry: Geometry) -> int:
        """Cache pages that its sequences take."""
        return sum(-(-length // geometry.page_tokens) for length in self.lengths)


def make_batch(geometry: Geometry, rows: int, context: str | None) -> Batch:
    """``rows`` rows that see ``context`` tokens each, or from 1 to the longest there can be if "ragged".

    None is `DEFAULT_CONTEXT`, or the most that the artifact has room for. Raises a `PredecodeError` for a
    context that the artifact cannot hold.
    """
    room = geometry.pages // rows * geometry.page_tokens
    if room == 0:
        raise PredecodeError(
            f"{rows} rows take {rows} pages or more, the artifact's pool has {geometry.pages}; export with more --pages"
        )
    if context == RAGGED:
        return Batch(RAGGED, _ragged_lengths(geometry, rows))
    if context is None:
        context = str(min(DEFAULT_CONTEXT, geometry.max_context, room))
    if not context.isdecimal() or int(context) < 1:
        raise PredecodeError(f"--context {context!r}: expected a number of tokens from 1, or {RAGGED!r}")
    length = int(context)
    if length > geometry.max_context:
        raise PredecodeError(
            f"--context {length} is more than the artifact's {geometry.max_context} tokens; export with a larger "
            "--max-context"
        )
    batch = Batch(context, (length,) * rows)
    if batch.pages(geometry) > geometry.pages:
        raise PredecodeError(
            f"{rows} rows of {length} tokens take {batch.pages(geometry)} pages, the artifact's pool has "
            f"{geometry.pages}; export with more --pages"
        )
    return batch


def _ragged_lengths(geometry: Geometry, rows: int) -> tuple[int, ...]:
    """Seeded lengths, even in their logarithm but for the first, the longest that pool and context allow."""
    draws = np.random.default_rng(_SEED).random(rows)
    draws[0] = 1
    longest = geometry.max_context
    while True:
        lengths = tuple(max(1, round(length)) for length in longest**draws)
        if Batch(RAGGED, lengths).pages(geometry) <= geometry.pages:
            return lengths
        longest = max(1, longest * 3 // 4)


def place(geometry: Geometry, batch: Batch) -> RowPlacement:
    """The batch's last tokens, each row on pages of its own, which lie in no order."""
    pages = np.random.default_rng(_SEED).permutation(geometry.pages)
    counts = [-(-length // geometry.page_tokens) for length in batch.lengths]
    positions = np.asarray(batch.lengths, np.int64) - 1
    table = np.zeros((batch.rows, geometry.block_table_width), np.int32)
    for row, (count, first) in enumerate(zip(counts, np.cumsum([0, *counts[:-1]]), strict=True)):
        table[row, :count] = pages[first : first + count]
    page, token = np.divmod(positions, geometry.page_tokens)
    return RowPlacement(
        positions=positions,
        lengths=np.asarray(batch.lengths, np.int32),
        slot_mapping=table[np.arange(batch.rows), page].astype(np.int64) * geometry.page_tokens + token,
        block_table=table,
    )


def step_arguments(manifest: Manifest, batch: Batch) -> dict[str, np.ndarray]:
    """Arguments of the step: seeded tokens or activations, placed as `place` does."""
    random = np.random.default_rng(_SEED)
    tokens = random.integers(0, manifest.model.config.get("vocab_size", 2**31), batch.rows)
    placement = place(manifest.geometry, batch)
    return {
        name: made_up_argument(spec, placement, tokens, random)
        for name, spec in caller_arguments(manifest.segments(batch.rows)).items()
    }


def cache_contents(spec: TensorSpec, element_format: str) -> np.ndarray:
    """Bytes of a cache whose every token holds normal noise of unit variance in ``element_format``, as real ones do.

    Smaller keys would let the step's own stand out from all others, and top-k choose among logits nearly alike.
    """
    layout = CACHE_PAGES.get(spec.layout)
    if layout is None or element_format not in _FP8:
        raise PredecodeError(
            f"cache {spec.name} has layout {spec.layout!r} in {element_format}, which bench cannot fill; expected "
            f"one of {sorted(CACHE_PAGES)} in {' or '.join(_FP8)}"
        )
    dtype = _FP8[element_format]
    largest = float(ml_dtypes.finfo(dtype).max)
    noise = np.random.default_rng(_SEED).standard_normal(_PATTERN_BYTES, np.float32)
    elements = np.clip(noise / (_KEY_SCALE if layout.has_scales else 1), -largest, largest)
    cache = np.resize(elements.astype(dtype).view(np.int8), spec.shape)
    if layout.has_scales:
        first = layout.scale_offset(0, layout.dims(spec.shape[1]))
        scales = np.full((1, (spec.shape[1] - first) // 4), _KEY_SCALE, np.float32)
        cache[:, first:] = scales.view(np.int8)
    return cache
