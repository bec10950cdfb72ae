"""A small eager decoder for the tests: ranks, caches, pages and sequences around the model's segments."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.export.config import ModelConfig
from predecode.export.model.segments import Segment, build_segments
from predecode.export.model.tensor_spec import Geometry
from predecode.export.shard import Shard
from predecode.export.weights import TensorSource, load_into

POISON = {"e4m3fn": -1, "e4m3fnuz": -128, "float32": -1}
"""A byte that makes every element of a page NaN."""


@dataclass
class TokenSequence:
    """A sequence: its pages, in order, and how many tokens it has."""

    pages: list[int]
    length: int = 0


@dataclass
class Rank:
    """One tensor-parallel rank: its segments and its caches."""

    segments: list[Segment]
    caches: dict[str, torch.Tensor] = field(default_factory=dict)


class EagerDecoder:
    """Runs decode steps of ``config`` with weights from ``source``; pages are handed out in shuffled order.

    Every cache starts filled with NaN.
    """

    def __init__(
        self,
        config: ModelConfig,
        source: TensorSource,
        element_format: ElementFormat,
        *,
        max_context: int = 256,
        pages: int = 12,
        ranks: int = 1,
        reduce: str = "none",
        layers: tuple[int, ...] | None = None,
    ):
        self.config, self.element_format = config, element_format
        self.geometry = Geometry(max_context, pages)
        shuffled = torch.randperm(pages, generator=torch.Generator().manual_seed(5)).tolist()
        self._free_pages = shuffled
        self.ranks = []
        for rank in range(ranks):
            shard = Shard(ranks, rank)
            segments = build_segments(config, layers, shard, reduce, element_format, self.geometry)
            made = Rank(segments)
            for segment in segments:
                load_into(segment.state_dict(), source, config, shard, element_format)
                for spec in segment.arguments(1):
                    if spec.role == "cache":
                        made.caches[spec.name] = torch.full(spec.shape, POISON[element_format.name], dtype=torch.int8)
            self.ranks.append(made)

    def sequence(self, tokens: int) -> TokenSequence:
        """A new sequence with pages for ``tokens`` tokens."""
        count = -(-tokens // PAGE_TOKENS)
        return TokenSequence([self._free_pages.pop() for _ in range(count)])

    def rows(self, step: Sequence[tuple[TokenSequence, int] | None]) -> dict[str, torch.Tensor]:
        """Inputs of a step that appends a token to each given sequence; None is a padding row."""
        inputs = {name: [] for name in ("tokens", "positions", "lengths", "slot_mapping", "block_table")}
        for row in step:
            width = self.geometry.block_table_width
            if row is None:
                token, position, slot, pages, length = 0, 0, -1, [], 0
            else:
                sequence, token = row
                position, pages = sequence.length, sequence.pages
                sequence.length = length = position + 1
                slot = pages[position // PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS
            table = pages + [0] * (width - len(pages))
            for name, value in zip(inputs, (token, position, length, slot, table), strict=True):
                inputs[name].append(value)
        dtypes = {"lengths": torch.int32, "block_table": torch.int32}
        return {name: torch.tensor(values, dtype=dtypes.get(name, torch.int64)) for name, values in inputs.items()}

    def run(self, inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """One step; results by name, those of rank 0 except logits, which are the whole vocabulary's."""
        states = [dict(inputs) for _ in self.ranks]
        with torch.no_grad():
            for index in range(len(self.ranks[0].segments)):
                for rank, state in zip(self.ranks, states, strict=True):
                    self._run_segment(rank, rank.segments[index], state)
                if "hidden_partial" in states[0]:
                    total = sum(state.pop("hidden_partial").float() for state in states)
                    for state in states:
                        state["hidden"] = total.to(self.element_format.activation_dtype)
        if "logits" in states[0]:
            states[0]["logits"] = torch.cat([state["logits"] for state in states], -1)
        return states[0]

    def step(self, step: Sequence[tuple[TokenSequence, int] | None]) -> torch.Tensor:
        """Logits float32 [T, vocab] of one step."""
        return self.run(self.rows(step))["logits"]

    def _run_segment(self, rank: Rank, segment: Segment, state: dict[str, torch.Tensor]) -> None:
        rows = len(next(iter(state.values())))
        given = []
        for spec in segment.arguments(rows):
            tensor = rank.caches[spec.name] if spec.role == "cache" else state[spec.name]
            assert tuple(tensor.shape) == spec.shape and tensor.dtype == spec.dtype, spec
            given.append(tensor)
        for spec, tensor in zip(segment.results(rows), segment(*given), strict=True):
            assert tuple(tensor.shape) == spec.shape and tensor.dtype == spec.dtype, spec
            (rank.caches if spec.role == "cache" else state)[spec.name] = tensor


def prefill(decoder: EagerDecoder, sequence: TokenSequence, tokens: Sequence[int], chunk: int) -> torch.Tensor:
    """Logits [tokens, vocab] of ``tokens`` appended to ``sequence``, ``chunk`` rows a step."""
    logits = [
        decoder.step([(sequence, token) for token in tokens[start : start + chunk]])
        for start in range(0, len(tokens), chunk)
    ]
    return torch.cat(logits)
