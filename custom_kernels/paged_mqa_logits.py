"""Scores of the lightning indexer: every query row against the cached keys of its sequence.

Source: aiter `deepgemm_fp8_paged_mqa_logits` with ``Preshuffle`` and pages of 64 tokens.
"""

import torch

from predecode.custom_kernels.cache_bytes import bytes_to_elements, bytes_to_float32
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE, ElementFormat
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import (
    INDEXER_HEAD_DIM,
    PAGE_TOKENS,
    PRESHUFFLED_PAGE,
    TILE,
    require_layout,
)
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import IndexerCache

THREADS = 256
WORKGROUPS_PER_UNIT = 2
"""Of a compute unit, at once: pages under way to both are more than memory needs to be busy."""
MOST_HEADS = 64
"""More do not fit in a wave's registers."""
PAGE_OPERANDS = ("cache", "block_table", "lengths")
"""What tells which keys are scored, and the keys."""


def cached_keys(
    cache: torch.Tensor, block_table: torch.Tensor, element_format: ElementFormat
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys [T, B*64, 128] and scales [T, B*64], both float32, of the pages in ``block_table`` [T, B].

    Entries past a row's length may hold anything, so they are clamped to the pool.
    """
    rows, width = block_table.shape
    pages = block_table.long().clamp(0, cache.shape[0] - 1)[..., None]
    token = torch.arange(PAGE_TOKENS)
    size = element_format.itemsize
    dims = torch.arange(INDEXER_HEAD_DIM)
    key_starts = PRESHUFFLED_PAGE.key_offset(token[:, None], dims, size).flatten()
    key_bytes = (key_starts[:, None] + torch.arange(size)).flatten()
    scale_bytes = (PRESHUFFLED_PAGE.scale_offset(token, size)[:, None] + torch.arange(4)).flatten()
    keys = bytes_to_elements(cache[pages, key_bytes], element_format).float()
    scales = bytes_to_float32(cache[pages, scale_bytes].unflatten(-1, (PAGE_TOKENS, 4)))
    positions = width * PAGE_TOKENS
    return keys.reshape(rows, positions, INDEXER_HEAD_DIM), scales.reshape(rows, positions)


def reference(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: torch.Tensor,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    topk: int,
) -> torch.Tensor:
    keys, scales = cached_keys(cache, block_table, FORMAT_OF_DTYPE[query.dtype])
    products = torch.bmm(query.float(), keys.transpose(1, 2)) * scales[:, None]
    logits = (products.clamp_min(0.0) * weights[..., None]).sum(1)
    position = torch.arange(logits.shape[1], dtype=torch.int32)
    scored = torch.where(lengths > topk, lengths, 0)
    return torch.where(position[None] < scored[:, None], logits, float("-inf"))


def _fake(query, weights, cache, block_table, lengths, topk):
    return query.new_empty((block_table.shape[0], block_table.shape[1] * PAGE_TOKENS), dtype=torch.float32)


def launch_for_heads(target: Target, call: Call, heads: int) -> Launch | None:
    """The launch for ``heads`` heads, and the cache, pages, lengths and topk of ``call``."""
    rows, width = call["block_table"].shape
    operands = ("query", "weights", *PAGE_OPERANDS)
    topk = call["topk"]
    if not target.has_hip_kernels:
        return Launch("paged_mqa_logits.cpp", "paged_mqa_logits", operands, (width, heads, topk), (width, rows, 1))
    if heads > MOST_HEADS:
        return None
    workgroups = min(target.compute_units * WORKGROUPS_PER_UNIT, rows * width)
    return Launch(
        source="paged_mqa_logits.hip",
        symbol="paged_mqa_logits",
        operands=operands,
        constants=(width, topk),
        workgroups=(workgroups, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("HEAD_TILES", heads // TILE), ("ROWS", rows), ("WORKGROUPS", workgroups)),
        workgroups_per_unit=WORKGROUPS_PER_UNIT,
        reads_early=PAGE_OPERANDS,
    )


def _launch(target: Target, call: Call) -> Launch | None:
    return launch_for_heads(target, call, call["query"].shape[1])


def touched(call: Call) -> dict[str, int]:
    """The pages of the block table."""
    return {"cache": call["block_table"].numel() * call["cache"].shape[1]}


OP = define_op(
    "paged_mqa_logits(Tensor query, Tensor weights, Tensor cache, Tensor block_table, Tensor lengths, "
    "int topk) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=touched,
)


def paged_mqa_logits(
    query: torch.Tensor,
    weights: torch.Tensor,
    cache: IndexerCache,
    block_table: torch.Tensor,
    lengths: torch.Tensor,
    topk: int,
) -> torch.Tensor:
    """``logits[t, p] = sum_h weights[t, h] * max(0, (query[t, h] . key(t, p)) * key_scale(t, p))``.

    ``query`` [T, H, 128] in an element format, H a multiple of 16; ``weights`` float32 [T, H]; ``cache`` of
    preshuffled pages; ``block_table`` int32 [T, B]; ``lengths`` int32 [T], at most B*64. Position p of row t
    is token p % 64 of page ``block_table[t, p // 64]``. Scales are finite and
    not negative. Returns float32 [T, B*64], summed in float32. Only [0, length) of a row is defined, and nothing
    of a row of at most ``topk`` tokens, whose choice needs no scores: a kernel leaves the rest unwritten, the
    reference puts -inf there.
    """
    op = "paged_mqa_logits"
    require_layout(op, "cache", cache.page, PRESHUFFLED_PAGE, "write it with page_layout 'preshuffled page'")
    if query.dim() != 3 or query.shape[1] % TILE or query.shape[2] != INDEXER_HEAD_DIM:
        raise ValueError(
            f"{op}: query is {list(query.shape)}, expected [T, H, {INDEXER_HEAD_DIM}] with H a multiple of {TILE}"
        )
    rows, heads, _ = query.shape
    page_bytes = cache.page.page_bytes(query.dtype.itemsize)
    require_tensor(op, "weights", weights, torch.float32, (rows, heads))
    require_tensor(op, "cache", cache.data, torch.int8, ("pages", page_bytes))
    require_tensor(op, "block_table", block_table, torch.int32, (rows, "B"))
    require_tensor(op, "lengths", lengths, torch.int32, (rows,))
    return torch.ops.predecode.paged_mqa_logits(query, weights, cache.data, block_table, lengths, topk)
