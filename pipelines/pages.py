"""Handing out cache pages to sequences, and the tensors that tell an entry point where each row lives."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Geometry

PADDING_SLOT = -1


class PageError(PredecodeError):
    """The pool has no free page, or a sequence is longer than the artifact allows."""


@dataclass(slots=True)
class PagedSequence:
    """A sequence in the caches: its length in tokens and the pages that hold them, in order."""

    pages: list[int] = field(default_factory=list)
    length: int = 0


@dataclass(frozen=True, slots=True)
class RowPlacement:
    """Where T rows are: positions and slot_mapping int64 [T], lengths int32 [T], block_table int32 [T, B]."""

    positions: np.ndarray
    lengths: np.ndarray
    slot_mapping: np.ndarray
    block_table: np.ndarray

    def as_arguments(self) -> dict[str, np.ndarray]:
        """By argument name of the entry points."""
        return {
            "positions": self.positions,
            "lengths": self.lengths,
            "slot_mapping": self.slot_mapping,
            "block_table": self.block_table,
        }


class PagePool:
    """A free list over the pages of an artifact's caches. Freed pages are handed out again first."""

    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        self._free = list(reversed(range(geometry.pages)))

    @property
    def free_pages(self) -> int:
        """Pages not held by a sequence."""
        return len(self._free)

    def append(self, sequences: Sequence[PagedSequence]) -> RowPlacement:
        """Make room for one more token per entry of ``sequences`` and place it: one row each.

        The same sequence may stand several times in a row (chunked prefill): its tokens follow each other.
        Nothing is changed when it raises `PageError`.
        """
        geometry = self.geometry
        added: dict[int, int] = {}
        for sequence in sequences:
            added[id(sequence)] = added.get(id(sequence), 0) + 1
        distinct = {id(sequence): sequence for sequence in sequences}
        needed = 0
        for key, sequence in distinct.items():
            length = sequence.length + added[key]
            if length > geometry.max_context:
                raise PageError(
                    f"a sequence of {length} tokens is longer than the artifact's context of "
                    f"{geometry.max_context}; export with a larger --max-context"
                )
            needed += -(-length // geometry.page_tokens) - len(sequence.pages)
        if needed > len(self._free):
            raise PageError(
                f"{needed} more pages are needed, {len(self._free)} of {geometry.pages} are free; free a "
                "sequence or export with more --pages"
            )
        rows = len(sequences)
        placement = RowPlacement(
            positions=np.zeros(rows, np.int64),
            lengths=np.zeros(rows, np.int32),
            slot_mapping=np.zeros(rows, np.int64),
            block_table=np.zeros((rows, geometry.block_table_width), np.int32),
        )
        for row, sequence in enumerate(sequences):
            page, offset = divmod(sequence.length, geometry.page_tokens)
            if page == len(sequence.pages):
                sequence.pages.append(self._free.pop())
            placement.positions[row] = sequence.length
            placement.slot_mapping[row] = sequence.pages[page] * geometry.page_tokens + offset
            sequence.length += 1
            placement.lengths[row] = sequence.length
            placement.block_table[row, : len(sequence.pages)] = sequence.pages
        return placement

    def release(self, sequence: PagedSequence) -> None:
        """Give the sequence's pages back; it is empty afterwards."""
        self._free.extend(reversed(sequence.pages))
        sequence.pages.clear()
        sequence.length = 0
