"""The two norms of MLA's low-rank input: the query part is quantised, the latent part becomes the row's cached key.

Source: aiter `fused_rms_fp8_group_quant` with the query as ``inp1`` and the latent as ``inp2``, followed by the key
half of aiter `fused_qk_rope_cat_and_cache_mla`. All parts are read in place from the output of the fused down
projection.
"""

import torch

from predecode.custom_kernels.cache_bytes import elements_to_bytes, page_and_token, write_bytes
from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.indexer_k_quant_and_cache import require_slots
from predecode.custom_kernels.join_columns import join_columns
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES, PAGE_TOKENS
from predecode.custom_kernels.normalize import rms_normalize
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_groups, require_tensor
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define, rotate
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import LatentCache, QuantizedActivation

LATENT_MULTIPLE = 8
"""The kernel reads eight columns at a time."""
FEW_ROWS = 32
"""Rows up to which workgroups of one row leave enough compute units to a product that loads its weights meanwhile, and
words that are posted are read faster than all at once when they are there."""


def reference(
    qkv_a: torch.Tensor,
    query_weight: torch.Tensor,
    latent_weight: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    query_epsilon: float,
    latent_epsilon: float,
    rope_layout: str,
    element_format: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stored = ELEMENT_FORMATS[element_format]
    query_dim, latent_dim = query_weight.shape[0], latent_weight.shape[0]
    query = rms_normalize(qkv_a[:, :query_dim], query_weight, query_epsilon)
    values, scales = quantize_groups(query, stored)
    latent = rms_normalize(qkv_a[:, query_dim : query_dim + latent_dim], latent_weight, latent_epsilon)
    joined = join_columns(latent.to(qkv_a.dtype), qkv_a, query_dim + latent_dim)[:, None]
    rotated = rotate(joined.float(), rope_table, positions, rope_layout, latent_dim)[:, 0]
    key = elements_to_bytes(stored.encode(rotated.to(qkv_a.dtype)))
    pages, tokens = page_and_token(slot_mapping)
    starts = (pages * PAGE_TOKENS + tokens) * key.shape[1]
    key_bytes = starts[:, None] + torch.arange(key.shape[1], device=key.device)
    return values, GROUP_MAJOR_SCALES.pack(scales), write_bytes(cache, slot_mapping, key_bytes, key)


def _fake(
    qkv_a,
    query_weight,
    latent_weight,
    rope_table,
    positions,
    cache,
    slot_mapping,
    query_epsilon,
    latent_epsilon,
    rope_layout,
    element_format,
):
    rows, query_dim = qkv_a.shape[0], query_weight.shape[0]
    return (
        qkv_a.new_empty((rows, query_dim), dtype=ELEMENT_FORMATS[element_format].dtype),
        qkv_a.new_empty((query_dim // GROUP, rows), dtype=torch.float32),
        torch.empty_like(cache),
    )


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, rope_dim = call["qkv_a"].shape[0], call["rope_table"].shape[1]
    query_dim, latent_dim = call["query_weight"].shape[0], call["latent_weight"].shape[0]
    epsilons = float_bits(call["query_epsilon"]), float_bits(call["latent_epsilon"])
    operands = ("qkv_a", "query_weight", "latent_weight", "rope_table", "positions", "cache", "slot_mapping")
    defines = (("QUERY_DIM", query_dim), ("LATENT_DIM", latent_dim), ("ROPE_DIM", rope_dim))
    defines += (rope_define(call["rope_layout"]),)
    if not target.has_hip_kernels:
        return Launch(
            source="latent_norms_and_cache.cpp",
            symbol="latent_norms_and_cache",
            operands=operands,
            constants=(rows, *epsilons),
            workgroups=(rows, 1, 1),
            defines=defines,
        )
    # Rotated halves are exchanged between lanes of a wave, at a distance that is a power of two.
    if rope_dim not in (16, 32, 64, 128):
        return None
    rows_each = 2 if target.starts_in_order and rows > FEW_ROWS else 1
    row_workgroups = -(-rows // rows_each)
    return Launch(
        source="latent_norms_and_cache.hip",
        symbol="latent_norms_and_cache",
        operands=operands,
        constants=(rows, *epsilons),
        workgroups=(row_workgroups, 2, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROWS_EACH", rows_each), *defines),
        reads_early=("query_weight", "latent_weight", "rope_table", "positions", "slot_mapping"),
        makers=(row_workgroups, row_workgroups, 2 * row_workgroups),  # the keys come after the queries
        takes="qkv_a" if rows <= FEW_ROWS else "",
    )


def _touched(call: Call) -> dict[str, int]:
    rows, rope_dim = call["qkv_a"].shape[0], call["rope_table"].shape[1]
    return {"rope_table": rows * rope_dim * 4, "cache": rows * call["cache"].shape[1] // PAGE_TOKENS}


OP = define_op(
    "latent_norms_and_cache(Tensor qkv_a, Tensor query_weight, Tensor latent_weight, Tensor rope_table, "
    "Tensor positions, Tensor cache, Tensor slot_mapping, float query_epsilon, float latent_epsilon, "
    "str rope_layout, str element_format) -> (Tensor, Tensor, Tensor)",
    reference,
    _fake,
    in_place={2: "cache"},
    launch=_launch,
    touched=_touched,
)


def latent_norms_and_cache(
    qkv_a: torch.Tensor,
    query_weight: torch.Tensor,
    latent_weight: torch.Tensor,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: LatentCache,
    slot_mapping: torch.Tensor,
    query_epsilon: float,
    latent_epsilon: float,
    rope_layout: str,
    element_format: ElementFormat,
) -> tuple[QuantizedActivation, LatentCache]:
    """RMSNorms of the columns [0, Q) and [Q, Q + L) of ``qkv_a`` bf16 [T, Q + L + R], and its keys stored.

    ``query_weight`` bf16 [Q], Q a multiple of 128; ``latent_weight`` bf16 [L], L and R multiples of 8; float32
    instead of bf16 where the format does not quantise. ``rope_table`` float32 [max positions, R], ``positions``
    int64 [T], ``slot_mapping`` int64 [T] (-1 stores nothing; real slots differ).

    Returns the query part quantised (scales float32 [Q/128, T]), and the cache with each row's key at its slot: the
    normalised latent and the rotated last R columns, rounded to the activation dtype, then cast to the format without
    a scale, saturating (aiter leaves overflow to the hardware's cast).
    """
    op, dtype = "latent_norms_and_cache", element_format.activation_dtype
    require_tensor(op, "qkv_a", qkv_a, dtype, ("T", "Q + L + R"))
    require_tensor(op, "query_weight", query_weight, dtype, ("Q",))
    require_tensor(op, "latent_weight", latent_weight, dtype, ("L",))
    (rows, columns), rope_dim = qkv_a.shape, rope_table.shape[-1]
    query_dim, latent_dim = query_weight.shape[0], latent_weight.shape[0]
    require_groups(op, "query_weight", query_dim)
    require_rope_layout(op, rope_layout)
    require_rope_rows(op, rope_table, positions, rows, rope_dim)
    require_slots(op, slot_mapping, rows)
    if columns != query_dim + latent_dim + rope_dim or latent_dim % LATENT_MULTIPLE or rope_dim % LATENT_MULTIPLE:
        raise ValueError(
            f"{op}: qkv_a has {columns} columns for Q = {query_dim}, L = {latent_dim} and R = {rope_dim}; expected "
            f"their sum, and both L and R a multiple of {LATENT_MULTIPLE}"
        )
    page_bytes = PAGE_TOKENS * (latent_dim + rope_dim) * element_format.itemsize
    if cache.data.dtype != torch.int8 or cache.data.dim() != 2 or cache.data.shape[1] != page_bytes:
        raise ValueError(
            f"{op}: cache {cache.data.dtype}{list(cache.data.shape)}; expected int8 [pages, {page_bytes}], pages of "
            f"{PAGE_TOKENS} tokens of {latent_dim} + {rope_dim} elements in {element_format.name}"
        )
    values, scales, data = torch.ops.predecode.latent_norms_and_cache(
        qkv_a,
        query_weight,
        latent_weight,
        rope_table,
        positions,
        cache.data,
        slot_mapping,
        query_epsilon,
        latent_epsilon,
        rope_layout,
        element_format.name,
    )
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES), LatentCache(data)
