"""Gather the indexer keys of several sequences from their pages into contiguous rows.

Source: aiter `cp_gather_indexer_k_quant_cache`, plain and preshuffled: a byte copy without arithmetic.
"""

import torch

from predecode.custom_kernels.cache_bytes import (
    bytes_to_elements,
    bytes_to_float32,
    key_byte_offsets,
    scale_byte_offsets,
)
from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.indexer_k_quant_and_cache import require_indexer_cache
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import (
    INDEXER_HEAD_DIM,
    INDEXER_PAGES,
    PAGE_TOKENS,
    PRESHUFFLED_PAGE,
)
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import IndexerCache


def reference(
    cache: torch.Tensor,
    block_table: torch.Tensor,
    cumulative_lengths: torch.Tensor,
    total: int,
    page_layout: str,
    element_format: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    page_map, stored = INDEXER_PAGES[page_layout], ELEMENT_FORMATS[element_format]
    rows = torch.arange(total, device=cache.device)
    ends = cumulative_lengths[1:].long()
    # The owner of a row is the number of sequences that end at or before it; rows past the end have none.
    owner = (rows[:, None] >= ends).sum(1).clamp_max(ends.shape[0] - 1)
    owned = rows < ends[-1]
    position = torch.where(owned, rows - cumulative_lengths.long()[owner], 0)
    pages = torch.where(owned, block_table[owner, position // PAGE_TOKENS], 0).long()[:, None]
    tokens = position % PAGE_TOKENS
    keys = cache[pages, key_byte_offsets(page_map, tokens, stored.itemsize)]
    scales = cache[pages, scale_byte_offsets(page_map, tokens, stored.itemsize)]
    keys, scales = torch.where(owned[:, None], keys, 0), torch.where(owned[:, None], scales, 0)
    return bytes_to_elements(keys, stored), bytes_to_float32(scales)[:, 0]


def _fake(cache, block_table, cumulative_lengths, total, page_layout, element_format):
    keys = cache.new_empty((total, INDEXER_HEAD_DIM), dtype=ELEMENT_FORMATS[element_format].dtype)
    return keys, cache.new_empty((total,), dtype=torch.float32)


_THREADS = 256
_ROWS_PER_WORKGROUP = 32


def _launch(target: Target, call: Call) -> Launch | None:
    if not target.has_hip_kernels or call["element_format"] != target.element_format.name:
        return None
    sequences, table_width = call["block_table"].shape
    total = call["total"]
    return Launch(
        source="cp_gather_indexer_k_quant_cache.hip",
        symbol="cp_gather_indexer_k_quant_cache",
        operands=("cache", "block_table", "cumulative_lengths"),
        constants=(total, sequences, table_width),
        workgroups=(-(-total // _ROWS_PER_WORKGROUP), 1, 1),
        workgroup_size=(_THREADS, 1, 1),
        defines=(("PRESHUFFLED", int(call["page_layout"] == PRESHUFFLED_PAGE.name)),),
    )


def _touched(call: Call) -> dict[str, int]:
    return {"cache": call["total"] * call["cache"].shape[1] // PAGE_TOKENS}


OP = define_op(
    "cp_gather_indexer_k_quant_cache(Tensor cache, Tensor block_table, Tensor cumulative_lengths, int total, "
    "str page_layout, str element_format) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def cp_gather_indexer_k_quant_cache(
    cache: IndexerCache,
    block_table: torch.Tensor,
    cumulative_lengths: torch.Tensor,
    total: int,
    element_format: ElementFormat,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [total, 128] in the format and their float32 scales [total], sequence after sequence.

    ``block_table`` int32 [sequences, B] of page ids, ``cumulative_lengths`` int32 [sequences + 1] from 0, not
    decreasing. ``total`` is the static row count; rows at or past the last cumulative length are zero.
    """
    consumer = "cp_gather_indexer_k_quant_cache"
    require_indexer_cache(consumer, cache, element_format)
    sequences = block_table.shape[0]
    if block_table.dtype != torch.int32 or block_table.dim() != 2 or sequences < 1:
        raise ValueError(
            f"{consumer}: block_table {block_table.dtype}{list(block_table.shape)}; expected int32 [sequences, B]"
        )
    if cumulative_lengths.dtype != torch.int32 or list(cumulative_lengths.shape) != [sequences + 1]:
        raise ValueError(
            f"{consumer}: cumulative_lengths {cumulative_lengths.dtype}{list(cumulative_lengths.shape)}; "
            f"expected int32 [{sequences + 1}], one more than the block table has rows"
        )
    if total < 1:
        raise ValueError(f"{consumer}: total {total}; expected at least one row")
    return torch.ops.predecode.cp_gather_indexer_k_quant_cache(
        cache.data, block_table, cumulative_lengths, total, cache.page.name, element_format.name
    )
