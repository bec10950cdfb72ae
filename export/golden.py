"""Golden steps: what the eager model gives for a script of decode steps, to be compared with the compiled one.

The script decodes several sequences at once: contexts from empty to beyond the indexer's top-k and across page
edges, pages in random order, several rows of one sequence in a step, and padding rows. Cache bytes that no
sequence owns are NaN, so that reading one shows.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from predecode.custom_kernels.cache_bytes import elements_to_bytes, float32_to_bytes
from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, PAGE_TOKENS, PRESHUFFLED_PAGE
from predecode.export.model.segments import Segment
from predecode.export.model.tensor_spec import Geometry, TensorSpec
from predecode.export.tensors import to_numpy
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden import GoldenStep, SegmentGolden
from predecode.pipelines.manifest import Tolerance
from predecode.pipelines.pages import PADDING_SLOT

STEPS_PER_ROW_COUNT = 3
MOST_SEQUENCES = 6
SHARED_SEQUENCES = 2
_NAN_BYTE = {"e4m3fn": 0x7F, "e4m3fnuz": -0x80}

# An activation near a rounding edge may land on the next FP8 code, and what follows moves with it.
TOLERANCE = {
    "hidden": Tolerance(relative=0.12, cosine=0.99),
    "hidden_partial": Tolerance(relative=0.12, cosine=0.99),
    "residual": Tolerance(relative=0.06, cosine=0.995),
    "logits": Tolerance(relative=0.12, cosine=0.99),
    "selected_slots": Tolerance(),
    "indexer_cache": Tolerance(relative=0.12, cosine=0.99, steps=1, fraction=0.05),
    "latent_cache": Tolerance(relative=0.12, cosine=0.99, steps=1, fraction=0.05),
}


@dataclass(slots=True)
class _Sequence:
    pages: np.ndarray
    length: int
    most: int


def make_golden(
    segments: Sequence[Segment],
    rows: Sequence[int],
    geometry: Geometry,
    seed: int,
    on_step: Callable[[int, int], None],
) -> tuple[dict[str, np.ndarray], list[GoldenStep]]:
    """Initial caches and golden steps of ``segments``, whose parameters must be filled.

    ``on_step`` is told (step, of how many). A partial sum between segments stands for its own reduction: the
    next segment is given it as it is.
    """
    random = np.random.default_rng([seed, len(rows)])
    counts = [count for count in sorted(rows) for _ in range(STEPS_PER_ROW_COUNT)]
    sequences = _plan_sequences(random, geometry, segments[0].config.index_topk, sum(counts), max(rows))
    caches = _initial_caches(segments, sequences, segments[0].element_format, random)
    placements = (
        _place_rows(sequences, count, geometry, padded=number % STEPS_PER_ROW_COUNT == 1)
        for number, count in enumerate(counts)
    )
    return _run_steps(segments, placements, caches, random, lambda number: on_step(number, len(counts)))


def make_golden_at(
    segments: Sequence[Segment],
    batches: Sequence[Sequence[int]],
    geometry: Geometry,
    seed: int,
    on_step: Callable[[int, int], None],
) -> tuple[dict[str, np.ndarray], list[GoldenStep]]:
    """As `make_golden`, but with one step per batch, which gives the length that each of its rows sees.

    The rows share `SHARED_SEQUENCES` long sequences, so that long contexts fit a small pool; rows of equal
    length of one sequence are moved to earlier tokens.
    """
    random = np.random.default_rng([seed, len(batches)])
    longest = max(length for lengths in batches for length in lengths)
    pages = -(-longest // PAGE_TOKENS)
    if longest > geometry.max_context or pages * SHARED_SEQUENCES > geometry.pages:
        raise PredecodeError(
            f"{SHARED_SEQUENCES} sequences of {longest} tokens take {pages * SHARED_SEQUENCES} pages; the artifact has "
            f"{geometry.pages}, and contexts of at most {geometry.max_context} tokens"
        )
    free = random.permutation(geometry.pages)[: pages * SHARED_SEQUENCES].reshape(SHARED_SEQUENCES, pages)
    sequences = [_Sequence(own, longest, longest) for own in free]
    caches = _initial_caches(segments, sequences, segments[0].element_format, random)
    placements = (_place_at(sequences, lengths, geometry) for lengths in batches)
    return _run_steps(segments, placements, caches, random, lambda number: on_step(number, len(batches)))


def _run_steps(
    segments: Sequence[Segment],
    placements: Iterable[dict[str, torch.Tensor]],
    caches: dict[str, torch.Tensor],
    random,
    on_step: Callable[[int], None],
) -> tuple[dict[str, np.ndarray], list[GoldenStep]]:
    initial = {name: to_numpy(cache).copy() for name, cache in caches.items()}
    steps = []
    for number, values in enumerate(placements):
        on_step(number)
        rows = len(values["positions"])
        values |= _activations(segments[0].arguments(rows), random, segments[0].config.vocab_size)
        steps.append(GoldenStep(rows, tuple(_run(segment, rows, values, caches) for segment in segments)))
    return initial, steps


def tolerances(segments: Sequence[Segment]) -> dict[str, Tolerance]:
    """Tolerance of every result of ``segments``, by name."""
    names = {spec.name for segment in segments for spec in segment.results(1)}
    return {name: TOLERANCE[name.rsplit(".", 1)[-1]] for name in sorted(names)}


def _plan_sequences(random, geometry: Geometry, topk: int, rows: int, most_rows: int) -> list[_Sequence]:
    """Sequences that start at awkward lengths and fit the pool with room for their share of ``rows``."""
    count = max(1, min(MOST_SEQUENCES, most_rows, geometry.pages - 1))
    share = min(-(-rows // count) + 1, geometry.max_context)
    awkward = [
        0,
        PAGE_TOKENS - 1,
        topk - 1,
        topk + PAGE_TOKENS + 1,
        geometry.max_context - share,
        2 * PAGE_TOKENS,
    ]
    free = random.permutation(geometry.pages)
    sequences = []
    for start in awkward[:count]:
        length = max(0, min(start, geometry.max_context - share))
        left = len(free) - (count - len(sequences) - 1)  # at least one page for each of the others
        pages = min(-(-(length + share) // PAGE_TOKENS), left)
        most = min(pages * PAGE_TOKENS, geometry.max_context)
        sequences.append(_Sequence(free[:pages], min(length, most - 1), most))
        free = free[pages:]
    return sequences


def _place_rows(
    sequences: Sequence[_Sequence], rows: int, geometry: Geometry, padded: bool
) -> dict[str, torch.Tensor]:
    """Deal ``rows`` rows to the sequences in turn; rows of one sequence are its next tokens."""
    positions, slots, lengths = (
        np.zeros(rows, np.int64),
        np.full(rows, PADDING_SLOT, np.int64),
        np.zeros(rows, np.int32),
    )
    block_table = np.zeros((rows, geometry.block_table_width), np.int32)
    real = rows - 1 if padded and rows > 1 else rows
    for row in range(real):
        sequence = sequences[row % len(sequences)]
        if sequence.length == sequence.most:
            continue
        page, token = sequence.pages[sequence.length // PAGE_TOKENS], sequence.length % PAGE_TOKENS
        positions[row], slots[row] = sequence.length, page * PAGE_TOKENS + token
        sequence.length += 1
        lengths[row] = sequence.length
        block_table[row, : len(sequence.pages)] = sequence.pages
    arrays = {"positions": positions, "slot_mapping": slots, "lengths": lengths, "block_table": block_table}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _place_at(
    sequences: Sequence[_Sequence], lengths: Sequence[int], geometry: Geometry
) -> dict[str, torch.Tensor]:
    """Deal rows that see ``lengths`` tokens to the sequences in turn, each at a token of its own."""
    taken: set[tuple[int, int]] = set()
    block_table = np.zeros((len(lengths), geometry.block_table_width), np.int32)
    positions, slots = np.zeros(len(lengths), np.int64), np.zeros(len(lengths), np.int64)
    for row, length in enumerate(lengths):
        index = row % len(sequences)
        position = length - 1
        while (index, position) in taken:
            position -= 1
        if position < 0:
            raise PredecodeError(f"row {row} of length {length}: all tokens of its sequence up to there are taken")
        taken.add((index, position))
        pages = sequences[index].pages
        block_table[row, : len(pages)] = pages
        positions[row], slots[row] = position, pages[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
    arrays = {
        "positions": positions,
        "slot_mapping": slots,
        "lengths": (positions + 1).astype(np.int32),
        "block_table": block_table,
    }
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _activations(specs: Sequence[TensorSpec], random, vocabulary: int) -> dict[str, torch.Tensor]:
    """Random tokens, hidden states and residuals, as far as ``specs`` ask for them."""
    values = {}
    for spec in specs:
        if spec.name == "tokens":
            values[spec.name] = torch.from_numpy(random.integers(0, vocabulary, spec.shape))
        elif spec.name in ("hidden", "residual"):
            values[spec.name] = torch.from_numpy(random.standard_normal(spec.shape, np.float32)).to(
                spec.dtype
            )
        elif spec.name == "selected_slots":
            values[spec.name] = torch.full(spec.shape, PADDING_SLOT, dtype=spec.dtype)
    return values


def _run(
    segment: Segment, rows: int, values: dict[str, torch.Tensor], caches: dict[str, torch.Tensor]
) -> SegmentGolden:
    """Run ``segment`` eagerly; ``values`` and ``caches`` take its results."""
    specs, results = segment.arguments(rows), segment.results(rows)
    values["hidden"] = values.get("hidden", values.pop("hidden_partial", None))
    with torch.no_grad():
        given = segment(*(caches[spec.name] if spec.role == "cache" else values[spec.name] for spec in specs))
    golden = SegmentGolden(
        segment.name,
        {spec.name: to_numpy(values[spec.name]) for spec in specs if spec.role != "cache"},
        {spec.name: to_numpy(tensor) for spec, tensor in zip(results, given, strict=True)},
    )
    for spec, tensor in zip(results, given, strict=True):
        if spec.role == "cache":
            caches[spec.name] = tensor
        else:
            values[spec.name.removesuffix("_partial")] = tensor
    return golden


def _initial_caches(
    segments: Sequence[Segment], sequences: Sequence[_Sequence], element_format: ElementFormat, random
) -> dict[str, torch.Tensor]:
    """NaN everywhere but in the tokens that the sequences already have."""
    slots = np.concatenate(
        [
            s.pages[np.arange(s.length) // PAGE_TOKENS].astype(np.int64) * PAGE_TOKENS
            + np.arange(s.length) % PAGE_TOKENS
            for s in sequences
        ]
    )
    caches = {}
    for spec in (spec for segment in segments for spec in segment.arguments(1) if spec.role == "cache"):
        cache = torch.full(spec.shape, _NAN_BYTE[element_format.name], dtype=torch.int8)
        if spec.name.endswith("indexer_cache"):
            # 0x7F7F7F7F would be a number: a scale is NaN only with all exponent bits set.
            cache[:, PRESHUFFLED_PAGE.scale_offset(0, element_format.itemsize) :] = -1
            _fill_indexer_cache(cache, slots, element_format, random)
        else:
            width = spec.shape[1] // PAGE_TOKENS
            tokens = element_format.encode(_normal(random, (len(slots), width)))
            cache.view(-1, width)[slots] = elements_to_bytes(tokens)
        caches[spec.name] = cache
    return caches


def _fill_indexer_cache(
    cache: torch.Tensor, slots: np.ndarray, element_format: ElementFormat, random
) -> None:
    keys = elements_to_bytes(element_format.encode(_normal(random, (len(slots), INDEXER_HEAD_DIM)) * 64))
    scales = float32_to_bytes(torch.full((len(slots), 1), 2.0**-6))
    pages, tokens = (
        torch.from_numpy(slots // PAGE_TOKENS)[:, None],
        torch.from_numpy(slots % PAGE_TOKENS)[:, None],
    )
    offsets = PRESHUFFLED_PAGE.key_offset(tokens, torch.arange(INDEXER_HEAD_DIM), element_format.itemsize)
    cache[pages, offsets] = keys
    cache[pages, PRESHUFFLED_PAGE.scale_offset(tokens, element_format.itemsize) + torch.arange(4)] = scales


def _normal(random, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape, np.float32))
