"""Attention of absorbed MLA queries over the selected slots of the latent cache, in parts.

Source: SGLang `sparse_mla_fwd_decode_partial_fp8` (no scales: values stand for themselves), with the probabilities
left unquantised. `value_up_group_quant` combines the parts.
"""

from dataclasses import replace

import torch

from predecode.custom_kernels.cache_bytes import bytes_to_elements
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import AttentionParts, LatentCache

HEADS = 16
"""Most heads of one workgroup, which reads the selected slots once for all of them."""
TILE_SLOTS = 64
"""Slots that a workgroup gathers at a time."""
WORKGROUPS = 256
"""Aimed at: enough to fill any of the chips, and no more parts to combine than that takes."""
CPU_WORKGROUPS_PER_ROW = 4
"""Among which the splits of a row's heads are divided on a CPU."""
FEWEST_TILES_AHEAD = 3
"""Tiles of a workgroup for which NVIDIA gathers the next one while one is computed."""
COLUMN_MULTIPLE = 64
"""Columns of a step of the GPU kernel, along the keys and along the values."""


def splits_of(rows: int, heads: int, topk: int) -> int:
    """Into how many parts the slots of each row are split."""
    return max(1, min(-(-topk // TILE_SLOTS), WORKGROUPS // (rows * -(-heads // HEADS))))


def reference(
    query: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, value_dim: int, scale: float, splits: int
) -> tuple[torch.Tensor, torch.Tensor]:
    element_format = FORMAT_OF_DTYPE[query.dtype]
    (rows, heads, width), topk = query.shape, slots.shape[1]
    rounds = -(-topk // (TILE_SLOTS * splits))
    split, index = torch.arange(splits)[:, None], torch.arange(rounds * TILE_SLOTS)
    index = (index // TILE_SLOTS * splits + split) * TILE_SLOTS + index % TILE_SLOTS
    index = index.to(slots.device).flatten()
    chosen = torch.where(index < topk, slots[:, index.clamp_max(topk - 1)], -1).reshape(rows * splits, -1)
    valid = chosen >= 0
    stored = cache.reshape(-1, width * element_format.itemsize)[chosen.clamp_min(0).long()]
    # Invalid entries read slot 0, which may hold NaN: they leave both products as zeros.
    keys = torch.where(valid[..., None], bytes_to_elements(stored, element_format).float(), 0.0)
    queries = query.float()[:, None].expand(rows, splits, heads, width).reshape(rows * splits, heads, width)
    scores = torch.bmm(queries, keys.transpose(1, 2)) * scale
    scores = torch.where(valid[:, None], scores, float("-inf"))
    largest = torch.where(valid.any(1)[:, None], scores.amax(2), 0.0)
    weights = torch.exp(scores - largest[..., None])
    total = weights.sum(2)
    values = torch.bmm(weights, keys[..., :value_dim]) / torch.where(total == 0, 1.0, total)[..., None]
    log_sums = torch.where(valid.any(1)[:, None], largest + torch.log(total), float("-inf"))
    values = values.reshape(rows, splits, heads, value_dim).transpose(1, 2).contiguous()
    log_sums = log_sums.reshape(rows, splits, heads).transpose(1, 2).contiguous()
    return values.to(_parts_dtype(query)), log_sums


def _parts_dtype(query: torch.Tensor) -> torch.dtype:
    return torch.float16 if FORMAT_OF_DTYPE[query.dtype].is_quantized else torch.float32


def _fake(query, cache, slots, value_dim, scale, splits):
    rows, heads, _ = query.shape
    values = query.new_empty((rows, heads, splits, value_dim), dtype=_parts_dtype(query))
    return values, query.new_empty((rows, heads, splits), dtype=torch.float32)


def _launch(target: Target, call: Call) -> Launch | None:
    rows, heads, width = call["query"].shape
    value_dim, topk, splits = call["value_dim"], call["slots"].shape[1], call["splits"]
    if FORMAT_OF_DTYPE[call["query"].dtype] != target.element_format:
        return None
    operands, scale = ("query", "cache", "slots"), float_bits(call["scale"])
    widths = (("WIDTH", width), ("VALUE_DIM", value_dim), ("SPLITS", splits))
    groups = -(-heads // HEADS)
    if not target.has_hip_kernels:
        step = min(splits, CPU_WORKGROUPS_PER_ROW)
        return Launch(
            source="sparse_mla.cpp",
            symbol="sparse_mla",
            operands=operands,
            constants=(heads, topk, scale, step),
            workgroups=(groups, step, rows),
            defines=widths,
        )
    if width % COLUMN_MULTIPLE or value_dim % COLUMN_MULTIPLE:
        return None

    def launch(tiles: int) -> Launch:
        return Launch(
            source="sparse_mla.hip",
            symbol="sparse_mla",
            operands=operands,
            constants=(heads, scale),
            workgroups=(groups, splits, rows),
            workgroup_size=(THREADS, 1, 1),
            defines=(("HEADS", min(heads, HEADS)), ("TOPK", topk), ("TILES", tiles), *widths),
            # One gathers while the other computes. More heads need more registers than that leaves on sm_90.
            workgroups_per_unit=2 if heads <= HEADS // 2 else 0,
        )

    # Few rows are as fast without: their workgroups' first tiles keep the memory busy.
    if target.device != "cuda" or -(-topk // (TILE_SLOTS * splits)) < FEWEST_TILES_AHEAD:
        return launch(1)
    return replace(launch(2), when_resident=launch(1))


def _touched(call: Call) -> dict[str, int]:
    return {"cache": call["slots"].numel() * call["cache"].shape[1] // PAGE_TOKENS}


OP = define_op(
    "sparse_mla(Tensor query, Tensor cache, Tensor slots, int value_dim, float scale, int splits) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def sparse_mla(
    query: torch.Tensor, cache: LatentCache, slots: torch.Tensor, value_dim: int, scale: float
) -> AttentionParts:
    """``softmax_j(scale * query[t, h] . row_j) @ row_j[:value_dim]`` over parts of the cache rows j in ``slots[t]``.

    ``query`` [T, h, W] in an element format, W = latent + rope columns; ``cache`` with rows of W elements of that
    format; ``slots`` int32 [T, topk], where -1 is no slot. Tile i of 64 slots belongs to part i % parts; how many
    parts there are follows from the shapes (`splits_of`). Accumulated in float32.
    """
    element_format = FORMAT_OF_DTYPE.get(query.dtype)
    if element_format is None:
        expected = ", ".join(str(dtype) for dtype in FORMAT_OF_DTYPE)
        raise ValueError(f"sparse_mla: query is {query.dtype}, expected one of {expected}")
    require_tensor("sparse_mla", "query", query, query.dtype, ("T", "h", "W"))
    rows, heads, width = query.shape
    page_bytes = PAGE_TOKENS * width * element_format.itemsize
    require_tensor("sparse_mla", "cache", cache.data, torch.int8, ("pages", page_bytes))
    require_tensor("sparse_mla", "slots", slots, torch.int32, (rows, "topk"))
    if not 0 < value_dim <= width:
        raise ValueError(f"sparse_mla: value_dim is {value_dim}, expected 1 to the query's {width} columns")
    splits = splits_of(rows, heads, slots.shape[1])
    return AttentionParts(*torch.ops.predecode.sparse_mla(query, cache.data, slots, value_dim, scale, splits))
