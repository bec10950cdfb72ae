"""Where the rows of an op's arguments and results lie, and its arguments with some of them, in any order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.layouts import PAGE_TOKENS
from tests.custom_kernels.cases.block_scaled import elements
from tests.custom_kernels.cases.case import Case
from tests.custom_kernels.cases.paged_mqa_logits import random_pages
from tests.custom_kernels.compiled_cases import load
from tests.custom_kernels.reference_indexer import key_offset, scale_bytes

PADDING = -1
"""In a selection of rows: one that no sequence has."""
MOST_ROWS = 17

ValuesOfRow = Callable[[np.ndarray, int, int], np.ndarray]
"""(a result, a row's place in it, the row's slot or length) -> what the op computed for the row."""


@dataclass(frozen=True)
class Layout:
    """Axis of the rows in each argument that has them, and in each result; or which values of a result are a row's.

    ``case`` is one of the op's, by the start of its label, or is made for an element format. Several elements of an
    axis are a row's if the axis is longer than there are rows. ``padding`` is what a padding row holds, where not 0.
    """

    case: str | Callable[[ElementFormat], Case]
    arguments: Mapping[str, int]
    results: Sequence[int | ValuesOfRow]
    padding: Mapping[str, int] = field(default_factory=dict)


def latent_of_slot(cache: np.ndarray, place: int, slot: int) -> np.ndarray:
    return cache.reshape(len(cache) * PAGE_TOKENS, -1)[slot] if slot >= 0 else cache[:0]


def key_of_slot(page_layout: str) -> ValuesOfRow:
    def values(cache: np.ndarray, place: int, slot: int) -> np.ndarray:
        page, token = cache[slot // PAGE_TOKENS].view(np.uint8), slot % PAGE_TOKENS
        keys = [key_offset(token, dim, page_layout) for dim in range(128)]
        return np.concatenate((page[keys], page[scale_bytes(token, 1)])) if slot >= 0 else page[:0]

    return values


MOST_SELECTED = 96


def logits_of_length(logits: np.ndarray, place: int, length: int) -> np.ndarray:
    # Of a row of which all tokens are selected, none is computed.
    return logits[place, : length if length > MOST_SELECTED else 0]


def lengths_around_a_selection(element_format: ElementFormat) -> Case:
    """`paged_mqa_logits` of rows of a few pages, two of them of no more tokens than are selected."""
    generator, pages, width = torch.Generator().manual_seed(21), 40, 12
    lengths = torch.tensor([700, 97, 96, 5, 768, 130, 191, 192, 333], dtype=torch.int32)
    query = elements(generator, (len(lengths), 32, 128), element_format)
    weights = torch.randn(len(lengths), 32, generator=generator)
    table = torch.randint(0, pages, (len(lengths), width), generator=generator, dtype=torch.int32)
    cache = random_pages(generator, pages, element_format)
    return Case("", (query, weights, cache, table, lengths, MOST_SELECTED), ())


def equal_scores(element_format: ElementFormat) -> Case:
    """`topk_slots` of rows in which many scores are equal."""
    _, _, _, table, lengths, topk = lengths_around_a_selection(element_format).arguments
    logits = torch.randn(len(lengths), table.shape[1] * PAGE_TOKENS, generator=torch.Generator().manual_seed(22))
    return Case("", (logits.round(decimals=1), lengths, table, topk), ())


def with_a_shared_expert(name: str) -> Callable[[ElementFormat], Case]:
    def case(element_format: ElementFormat) -> Case:
        (found,) = (case for case in load(name, element_format)[1] if case.label == "17 rows")
        return Case("", (*found.arguments[:-1], 1), ())

    return case


LAYOUTS = {
    "rms_norm_group_quant": Layout("65 rows", {"x": 0}, (0, 1, 0)),
    "add_rms_norm_group_quant": Layout("65 rows", {"x": 0, "residual": 0}, (0, 1, 0, 0)),
    "group_quant": Layout("65 rows", {"x": 0}, (0, 1)),
    "silu_mul_group_quant": Layout("65 rows", {"x": 0}, (0, 1)),
    "gemm_fp8_blockscale": Layout("65 rows", {"values": 0, "scales": 1}, (0,)),
    "linear_bf16": Layout("65 rows", {"x": 0}, (0,)),
    "latent_norms_and_cache": Layout(
        "65 rows", {"qkv_a": 0, "positions": 0, "slot_mapping": 0}, (0, 1, latent_of_slot), {"slot_mapping": -1}
    ),
    "q_absorb_rope_cat": Layout("16 rotated", {"q": 0, "positions": 0}, (0,)),
    "sparse_mla": Layout("24 heads, 63 rows", {"query": 0, "slots": 0}, (0, 0), {"slots": -1}),
    "value_up_group_quant": Layout("17 rows, 7 parts", {"parts": 0, "log_sums": 0}, (0, 1)),
    "indexer_k_prepare_and_cache": Layout(
        "65 rows",
        {"k": 0, "positions": 0, "slot_mapping": 0},
        (key_of_slot("preshuffled page"),),
        {"slot_mapping": -1},
    ),
    "indexer_k_quant_and_cache": Layout(
        "plain page, ue8m0", {"k": 0, "slot_mapping": 0}, (key_of_slot("plain page"),), {"slot_mapping": -1}
    ),
    "indexer_q_prepare": Layout("three heads", {"q": 0, "gates": 0, "positions": 0}, (0, 0)),
    "paged_mqa_logits": Layout(
        lengths_around_a_selection,
        {"query": 0, "weights": 0, "block_table": 0, "lengths": 0},
        (logits_of_length,),
    ),
    "topk_slots": Layout(equal_scores, {"logits": 0, "lengths": 0, "block_table": 0}, (0,)),
    "router_topk": Layout("GLM-5.1, 65 rows", {"logits": 0}, (0, 0)),
    "moe_gate_up": Layout(with_a_shared_expert("moe_gate_up"), {"values": 0, "scales": 1, "expert_ids": 0}, (0,)),
    "moe_down": Layout(
        with_a_shared_expert("moe_down"),
        {"values": 0, "scales": 1, "expert_ids": 0, "expert_weights": 0},
        (0,),
    ),
}


class Rows:
    """The first rows of one case of an op."""

    def __init__(self, name: str, element_format: ElementFormat):
        self.layout = LAYOUTS[name]
        self.op, cases = load(name, element_format)
        wanted = self.layout.case
        case = (
            next(case for case in cases if case.label.startswith(wanted))
            if isinstance(wanted, str)
            else wanted(element_format)
        )
        names = [argument.name for argument in self.op.overload._schema.arguments]
        self._given = dict(zip(names, case.arguments, strict=True))
        self._all = min(self._given[name].shape[axis] for name, axis in self.layout.arguments.items())
        self.count = min(self._all, MOST_ROWS)

    def arguments(self, selection: Sequence[int]) -> tuple:
        """The op's arguments with the rows of ``selection``; where rows have slots, each row once."""
        picked = {name: self._pick(name, self._seen(selection)) for name in self.layout.arguments}
        return tuple((self._given | picked).values())

    def results(self, selection: Sequence[int], results: Sequence[np.ndarray]) -> list[bytes | None]:
        """What the op computed for each row of ``selection``; None for padding rows."""
        parts = [
            self._told(selection, where, result) if callable(where) else _along(selection, where, result)
            for where, result in zip(self.layout.results, results, strict=True)
        ]
        rows = self._seen(selection)
        return [None if row == PADDING else b"".join(p[i] for p in parts) for i, row in enumerate(rows)]

    def _seen(self, selection: Sequence[int]) -> list[int]:
        if "slot_mapping" not in self._given:
            return list(selection)
        return [PADDING if row in selection[:i] else row for i, row in enumerate(selection)]

    def _pick(self, name: str, selection: Sequence[int]) -> torch.Tensor:
        tensor, axis = self._given[name], self.layout.arguments[name]
        rows = tensor.view(torch.int8) if tensor.itemsize == 1 else tensor
        rows = rows.unflatten(axis, (self._all, -1)).movedim(axis, 0)[[max(row, 0) for row in selection]]
        rows[torch.tensor(selection) == PADDING] = self.layout.padding.get(name, 0)
        return rows.movedim(0, axis).flatten(axis, axis + 1).contiguous().view(tensor.dtype)

    def _told(self, selection: Sequence[int], values: ValuesOfRow, result: np.ndarray) -> list[bytes]:
        of_rows = self._given["slot_mapping" if "slot_mapping" in self._given else "lengths"].tolist()
        return [values(result, place, of_rows[row]).tobytes() for place, row in enumerate(selection)]


def _along(selection: Sequence[int], axis: int, result: np.ndarray) -> list[bytes]:
    rows = result.reshape(*result.shape[:axis], len(selection), -1, *result.shape[axis + 1 :])
    return [row.tobytes() for row in np.moveaxis(rows, axis, 0)]
