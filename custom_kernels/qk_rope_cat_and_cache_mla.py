"""Rotate the query's and the key's rope parts, join them to the absorbed query and the latent, store the key.

Source: aiter `fused_qk_rope_cat_and_cache_mla`.
"""

import torch

from predecode.custom_kernels.cache_bytes import elements_to_bytes, page_and_token, write_bytes
from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.indexer_k_quant_and_cache import require_slots
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define, rotate
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import LatentCache


def reference(
    q: torch.Tensor,
    q_absorbed: torch.Tensor,
    latent: torch.Tensor,
    qkv_a: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    rope_layout: str,
    element_format: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    stored = ELEMENT_FORMATS[element_format]
    rows, heads, latent_dim = q_absorbed.shape
    rope_dim = rope_table.shape[1]
    q_rope = q.reshape(rows, heads, -1)[:, :, -rope_dim:]
    joined_q = _join_columns(q_absorbed, q_rope)
    joined_k = _join_columns(latent[:, None], qkv_a[:, None, -rope_dim:])

    def encoded(x: torch.Tensor) -> torch.Tensor:
        rotated = rotate(x.float(), rope_table, positions, rope_layout, latent_dim)
        return stored.encode(rotated.to(x.dtype))

    key = elements_to_bytes(encoded(joined_k)[:, 0])
    pages, tokens = page_and_token(slot_mapping)
    starts = (pages * PAGE_TOKENS + tokens) * key.shape[1]
    key_bytes = starts[:, None] + torch.arange(key.shape[1], device=key.device)
    return encoded(joined_q), write_bytes(cache, slot_mapping, key_bytes, key)


def _join_columns(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """[..., n] and [..., m] -> [..., n + m]. Unlike `torch.cat` it compiles without a copy."""
    split = left.shape[-1]
    column = torch.arange(split + right.shape[-1], device=left.device)
    return torch.where(
        column < split, left[..., column.clamp_max(split - 1)], right[..., (column - split).clamp_min(0)]
    )


def _fake(
    q, q_absorbed, latent, qkv_a, rope_table, positions, cache, slot_mapping, rope_layout, element_format
):
    rows, heads, latent_dim = q_absorbed.shape
    shape = (rows, heads, latent_dim + rope_table.shape[1])
    return q.new_empty(shape, dtype=ELEMENT_FORMATS[element_format].dtype), torch.empty_like(cache)


_VECTOR = 8
"""Columns that a lane of the kernel holds; rows and heads start at multiples of it."""


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, heads, latent_dim = call["q_absorbed"].shape
    rope_dim = call["rope_table"].shape[1]
    head_dim, qkv_a_dim = call["q"].shape[1] // heads, call["qkv_a"].shape[1]
    operands = (
        "q",
        "q_absorbed",
        "latent",
        "qkv_a",
        "rope_table",
        "positions",
        "cache",
        "slot_mapping",
    )
    rope = rope_define(call["rope_layout"])
    if not target.has_hip_kernels:
        return Launch(
            source="qk_rope_cat_and_cache_mla.cpp",
            symbol="qk_rope_cat_and_cache_mla",
            operands=operands,
            constants=(heads, head_dim, qkv_a_dim),
            workgroups=(rows, 1, 1),
            defines=(("LATENT", latent_dim), ("ROPE_DIM", rope_dim), rope),
        )
    # Rotated halves are exchanged between lanes of a wave, at a distance that is a power of two.
    if (
        rope_dim not in (16, 32, 64, 128)
        or latent_dim % rope_dim
        or head_dim % _VECTOR
        or qkv_a_dim % _VECTOR
    ):
        return None
    return Launch(
        source="qk_rope_cat_and_cache_mla.hip",
        symbol="qk_rope_cat_and_cache_mla",
        operands=operands,
        constants=(heads, head_dim, qkv_a_dim, latent_dim, rope_dim),
        workgroups=(heads + 1, rows, 1),
        workgroup_size=(128, 1, 1),
        defines=(rope,),
    )


def _touched(call: Call) -> dict[str, int]:
    rows, heads, _ = call["q_absorbed"].shape
    rope_dim, itemsize = call["rope_table"].shape[1], call["q"].element_size()
    return {
        "q": rows * heads * rope_dim * itemsize,
        "qkv_a": rows * rope_dim * itemsize,
        "rope_table": rows * rope_dim * 4,
        "cache": rows * call["cache"].shape[1] // PAGE_TOKENS,
    }


OP = define_op(
    "qk_rope_cat_and_cache_mla(Tensor q, Tensor q_absorbed, Tensor latent, Tensor qkv_a, Tensor rope_table, "
    "Tensor positions, Tensor cache, Tensor slot_mapping, str rope_layout, str element_format) "
    "-> (Tensor, Tensor)",
    reference,
    _fake,
    in_place={1: "cache"},
    launch=_launch,
    touched=_touched,
)


def qk_rope_cat_and_cache_mla(
    q: torch.Tensor,
    q_absorbed: torch.Tensor,
    latent: torch.Tensor,
    qkv_a: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: LatentCache,
    slot_mapping: torch.Tensor,
    rope_layout: str,
    element_format: ElementFormat,
) -> tuple[torch.Tensor, LatentCache]:
    """Attention query [T, heads, L + R] in the format, and the cache with this step's keys stored.

    ``q`` [T, heads * (nope + R)] is q_b's output: the last R columns of each head are rotated. ``q_absorbed``
    [T, heads, L], ``latent`` [T, L] normalised, ``qkv_a`` [T, ... + R]: its last R columns are the key's rope
    part. ``rope_table`` float32 [max positions, R], ``positions`` int64 [T], ``slot_mapping`` int64 [T] (-1
    stores nothing; real slots differ). Rotated values are rounded to the activation dtype, then all are cast
    to the format without a scale, saturating (aiter leaves overflow to the hardware's cast).
    """
    consumer = "qk_rope_cat_and_cache_mla"
    rows, heads, latent_dim = q_absorbed.shape
    rope_dim = rope_table.shape[-1]
    require_rope_layout(consumer, rope_layout)
    require_rope_rows(consumer, rope_table, positions, rows, rope_dim)
    require_slots(consumer, slot_mapping, rows)
    given = {name: list(x.shape) for name, x in (("q", q), ("latent", latent), ("qkv_a", qkv_a))}
    if (
        any(len(shape) != 2 or shape[0] != rows for shape in given.values())
        or q.shape[1] % heads
        or q.shape[1] // heads < rope_dim
        or latent.shape[1] != latent_dim
        or qkv_a.shape[1] < latent_dim + rope_dim
    ):
        raise ValueError(
            f"{consumer}: {given} with q_absorbed {list(q_absorbed.shape)} and {rope_dim} rotated "
            "dimensions; expected q [T, heads * (nope + R)], latent [T, L], qkv_a [T, q_a + L + R], "
            "q_absorbed [T, heads, L]"
        )
    page_bytes = PAGE_TOKENS * (latent_dim + rope_dim) * element_format.itemsize
    if cache.data.dtype != torch.int8 or cache.data.dim() != 2 or cache.data.shape[1] != page_bytes:
        raise ValueError(
            f"{consumer}: cache {cache.data.dtype}{list(cache.data.shape)}; expected int8 "
            f"[pages, {page_bytes}], pages of {PAGE_TOKENS} tokens of {latent_dim} + {rope_dim} elements "
            f"in {element_format.name}"
        )
    q_cat, data = torch.ops.predecode.qk_rope_cat_and_cache_mla(
        q,
        q_absorbed,
        latent,
        qkv_a,
        rope_table,
        positions,
        cache.data,
        slot_mapping,
        rope_layout,
        element_format.name,
    )
    return q_cat, LatentCache(data)
