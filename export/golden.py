"""Golden steps: what the eager model gives for a script of decode steps, to be compared with the compiled one.

The script decodes several sequences at once: contexts from empty to beyond the indexer's top-k and across page
edges, pages in random order, several rows of one sequence in a step, and padding rows. Cache bytes that no
sequence owns are NaN, so that reading one shows.

No choice in a golden may be one that rounding turns (see `near_ties`). Rows whose experts nearly tie are drawn again.
Cached tokens, whose scores would lie close together however rows are drawn, are copies of a few, and rows are drawn
again until a score of another token is far from where their selection ends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from predecode.custom_kernels.cache_bytes import elements_to_bytes
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.export.model.segments import Segment
from predecode.export.model.tensor_spec import Geometry, TensorSpec
from predecode.export.near_ties import Margins, NearTie, RefuseNearTies
from predecode.export.on_device import OnDevice
from predecode.export.tensors import to_numpy
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.golden import GoldenStep, SegmentGolden
from predecode.pipelines.golden_caches import NO_TOKEN, InitialCaches, TokenRows, rows_at
from predecode.pipelines.manifest import RESIDENT_ROLES, Tolerance
from predecode.pipelines.page_layout import CACHE_PAGES
from predecode.pipelines.pages import PADDING_SLOT

STEPS_PER_ROW_COUNT = 3
MOST_SEQUENCES = 6
MOST_DRAWS = 1000
FEWEST_TOKENS, SELECTED_TOKENS = 8, 2
"""Different cached tokens: at least so many, and so many whose copies make up a selection in the longest context."""
KEY_ELEMENT, KEY_SCALES = 64.0, (2.0**-3, 2.0**-3, 2.0**-3, 2.0**-4)
"""Deviation of a cached key's elements, and its scale in turn. Keys that rows write are of one: their scores lie near
zero beside these."""
MARGINS = Margins(experts=0.002, tokens=0.01)
TRUE_SIZE_HIDDEN, TRUE_SIZE_TOKENS, TRUE_SIZE_MARGINS = 4096, 16, Margins(experts=0.002, tokens=0.03)
"""Of models with so many hidden columns: where a product adds up thousands, a twentieth of its results is rounded the
other way if they are added in another order. A score then moves by 0.9 % of the row's largest (root of the mean square;
6 % at most of 130 000, seen on GLM-5.1's layer 0). Of more tokens few rows would have such margins."""
CPU = torch.device("cpu")

# An activation near a rounding edge may land on the next FP8 code, and what follows moves with it. What a segment's
# first layer caches has come through two roundings only; few of its elements differ.
STREAM_TOLERANCE = Tolerance(relative=0.12, cosine=0.995)
FIRST_CACHE_TOLERANCE = Tolerance(relative=0.125, cosine=0.999, steps=1, fraction=0.15)
LATER_CACHE_TOLERANCE = Tolerance(relative=0.125, cosine=0.995, steps=1)


@dataclass(slots=True)
class _Sequence:
    pages: np.ndarray
    length: int
    most: int

    @property
    def slots(self) -> np.ndarray:
        """Those of its tokens."""
        token = np.arange(self.length)
        return self.pages[token // PAGE_TOKENS].astype(np.int64) * PAGE_TOKENS + token % PAGE_TOKENS


def make_golden(
    segments: Sequence[Segment],
    rows: Sequence[int],
    geometry: Geometry,
    seed: int,
    on_step: Callable[[int, int], None],
) -> tuple[InitialCaches, list[GoldenStep]]:
    """Initial caches and golden steps of ``segments``, whose parameters must be filled.

    ``on_step`` is told (step, of how many). A partial sum between segments stands for its own reduction: the
    next segment is given it as it is.
    """
    random = np.random.default_rng([seed, len(rows)])
    counts = [count for count in sorted(rows) for _ in range(STEPS_PER_ROW_COUNT)]
    sequences = _plan_sequences(random, geometry, segments[0].config.index_topk, sum(counts), max(rows))
    script = _Script(segments, sequences, geometry, random, CPU)
    placements = [
        _place_rows(sequences, count, geometry, padded=number % STEPS_PER_ROW_COUNT == 1)
        for number, count in enumerate(counts)
    ]
    return script.run(placements, on_step)


def make_golden_at(
    segments: Sequence[Segment],
    batches: Sequence[Sequence[int]],
    geometry: Geometry,
    seed: int,
    on_step: Callable[[int, int], None],
    device: torch.device = CPU,
) -> tuple[InitialCaches, list[GoldenStep]]:
    """As `make_golden`, but with one step per batch, which gives the length that each of its rows sees.

    Rows share sequences where the pool has no room for one each; rows of equal length of one sequence are moved to
    earlier tokens. ``segments`` are on ``device``.
    """
    random = np.random.default_rng([seed, len(batches)])
    longest = max(length for lengths in batches for length in lengths)
    pages = -(-longest // PAGE_TOKENS)
    count = min(geometry.pages // pages, max(len(lengths) for lengths in batches))
    if longest > geometry.max_context or not count:
        raise PredecodeError(
            f"a sequence of {longest} tokens takes {pages} pages; the artifact has {geometry.pages}, and contexts of "
            f"at most {geometry.max_context} tokens"
        )
    free = random.permutation(geometry.pages)[: pages * count].reshape(count, pages)
    sequences = [_Sequence(own, longest, longest) for own in free]
    script = _Script(segments, sequences, geometry, random, device)
    return script.run([_place_at(sequences, lengths, geometry) for lengths in batches], on_step)


class _Script:
    """Steps that follow each other, with the caches as they are between them."""

    def __init__(
        self,
        segments: Sequence[Segment],
        sequences: Sequence[_Sequence],
        geometry: Geometry,
        random: np.random.Generator,
        device: torch.device,
    ):
        self._segments, self._random, self._device = segments, random, device
        config = segments[0].config
        if config.hidden_size >= TRUE_SIZE_HIDDEN:
            count, self._margins = TRUE_SIZE_TOKENS, TRUE_SIZE_MARGINS
        else:
            count, self._margins = -(-SELECTED_TOKENS * geometry.max_context // config.index_topk), MARGINS
        self._cache_specs = {spec.name: spec for s in segments for spec in s.arguments(1) if spec.role == "cache"}
        slots = np.concatenate([sequence.slots for sequence in sequences])
        self._initial = self._draw_caches(slots, geometry, max(FEWEST_TOKENS, count))
        element_format = segments[0].element_format.name
        self._caches = {
            name: torch.from_numpy(self._initial.pages(name, spec.layout, element_format)).to(device)
            for name, spec in self._cache_specs.items()
        }
        tokens = self._initial.tokens.astype(np.int64)
        # Numbers of slots with a token of their own come after those of the tokens that are copied.
        self._own = np.arange(len(tokens)) + tokens.max(initial=0) + 1
        self._identities = torch.from_numpy(np.where(tokens == NO_TOKEN, self._own, tokens)).to(device)

    def run(
        self, placements: Sequence[dict[str, np.ndarray]], on_step: Callable[[int, int], None]
    ) -> tuple[InitialCaches, list[GoldenStep]]:
        """The initial caches, and the steps of rows at ``placements``."""
        steps = []
        for number, placement in enumerate(placements):
            on_step(number, len(placements))
            steps.append(self._step(placement))
        return self._initial, steps

    def _step(self, placement: dict[str, np.ndarray]) -> GoldenStep:
        rows, slots = len(placement["positions"]), placement["slot_mapping"]
        written = slots[slots >= 0]
        self._identities[torch.from_numpy(written)] = torch.from_numpy(self._own[written]).to(self._device)
        values = {name: torch.from_numpy(array).to(self._device) for name, array in placement.items()}
        for spec in self._segments[0].arguments(rows):
            if spec.role != "cache" and spec.name not in values:
                values[spec.name] = self._draw(spec)
        return GoldenStep(rows, tuple(self._run(segment, rows, values) for segment in self._segments))

    def _run(self, segment: Segment, rows: int, values: dict[str, torch.Tensor]) -> SegmentGolden:
        """Run ``segment`` eagerly; ``values`` and the caches take its results."""
        specs, results = segment.arguments(rows), segment.results(rows)
        values["hidden"] = values.get("hidden", values.pop("hidden_partial", None))
        given = self._run_with_margins(segment, specs, values)
        golden_inputs = {
            spec.name: to_numpy(values[spec.name].cpu()) for spec in specs if spec.role not in RESIDENT_ROLES
        }
        golden_results, written = {}, {}
        for spec, tensor in zip(results, given, strict=True):
            if spec.role == "cache":
                self._caches[spec.name] = tensor
                written[spec.name] = self._rows_written(spec, tensor, values["slot_mapping"])
            else:
                values[spec.name.removesuffix("_partial")] = tensor
                golden_results[spec.name] = to_numpy(tensor.cpu())
        return SegmentGolden(segment.name, golden_inputs, golden_results, written)

    def _run_with_margins(
        self, segment: Segment, specs: Sequence[TensorSpec], values: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """Results of ``segment``; rows with a near tie are drawn again, in ``values`` too."""
        by_name = {spec.name: spec for spec in specs}
        drawn = by_name[next(name for name in ("tokens", "residual", "hidden") if name in by_name)]
        for _ in range(MOST_DRAWS):
            arguments = [(self._caches if spec.role == "cache" else values)[spec.name] for spec in specs]
            try:
                with torch.no_grad(), OnDevice(self._device), RefuseNearTies(self._margins, self._identities):
                    return segment(*arguments)
            except NearTie as near:
                again = near.rows.reshape(-1, *[1] * (len(drawn.shape) - 1))
                values[drawn.name] = torch.where(again, self._draw(drawn), values[drawn.name])
        raise PredecodeError(
            f"{segment.name}: after {MOST_DRAWS} draws some of {len(values['positions'])} rows still choose between "
            "experts or tokens that nearly tie; a model whose scores are all alike has no golden"
        )

    def _draw(self, spec: TensorSpec) -> torch.Tensor:
        """Random tokens, hidden states or residuals; no selected slots, and mailboxes of no other rank."""
        if spec.name == "tokens":
            vocabulary = self._segments[0].config.vocab_size
            drawn = torch.from_numpy(self._random.integers(0, vocabulary, spec.shape))
        elif spec.name == "selected_slots":
            drawn = torch.full(spec.shape, PADDING_SLOT, dtype=spec.dtype)
        elif spec.role == "mailboxes":
            drawn = torch.zeros(spec.shape, dtype=spec.dtype)
        else:
            drawn = _normal(self._random, spec.shape).to(spec.dtype)
        return drawn.to(self._device)

    def _draw_caches(self, slots: np.ndarray, geometry: Geometry, count: int) -> InitialCaches:
        """Copies of ``count`` tokens in ``slots``."""
        element_format = self._segments[0].element_format
        tokens = np.full(geometry.pages * PAGE_TOKENS, NO_TOKEN, np.int32)
        tokens[slots] = self._random.integers(0, count, len(slots))
        rows = {}
        for name, spec in self._cache_specs.items():
            page = CACHE_PAGES[spec.layout]
            deviation = KEY_ELEMENT if page.has_scales else 1.0
            elements = _normal(self._random, (count, page.dims(spec.shape[1]))) * deviation
            scales = np.resize(np.array(KEY_SCALES, np.float32), count) if page.has_scales else None
            rows[name] = TokenRows(elements_to_bytes(element_format.encode(elements)).numpy(), scales)
        return InitialCaches(tokens, rows)

    def _rows_written(self, spec: TensorSpec, cache: torch.Tensor, slots: torch.Tensor) -> TokenRows:
        pages = cache[(slots.clamp_min(0) // PAGE_TOKENS)].cpu().numpy()
        number, token = np.arange(len(pages)), slots.clamp_min(0).cpu().numpy() % PAGE_TOKENS
        return rows_at(pages, number * PAGE_TOKENS + token, spec.layout)


def tolerances(segments: Sequence[Segment]) -> dict[str, Tolerance]:
    """Tolerance of every result of ``segments``, by name."""
    found = {}
    for segment in segments:
        for spec in segment.results(1):
            if spec.name == "selected_slots":
                found[spec.name] = Tolerance()
            elif spec.role != "cache":
                found[spec.name] = STREAM_TOLERANCE
            elif spec.name.startswith(f"layers.{segment.part.layers[0]}."):
                found[spec.name] = FIRST_CACHE_TOLERANCE
            else:
                found[spec.name] = LATER_CACHE_TOLERANCE
    return dict(sorted(found.items()))


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


def _place_rows(sequences: Sequence[_Sequence], rows: int, geometry: Geometry, padded: bool) -> dict[str, np.ndarray]:
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
    return {"positions": positions, "slot_mapping": slots, "lengths": lengths, "block_table": block_table}


def _place_at(sequences: Sequence[_Sequence], lengths: Sequence[int], geometry: Geometry) -> dict[str, np.ndarray]:
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
    return {
        "positions": positions,
        "slot_mapping": slots,
        "lengths": (positions + 1).astype(np.int32),
        "block_table": block_table,
    }


def _normal(random, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(random.standard_normal(shape, np.float32))
