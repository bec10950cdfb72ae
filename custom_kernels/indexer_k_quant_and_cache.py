"""Quantise the indexer's keys and store them, with their scales, in the paged key cache.

Source: aiter `indexer_k_quant_and_cache`, plain and preshuffled.
"""

import torch

from predecode.custom_kernels.cache_bytes import (
    elements_to_bytes,
    float32_to_bytes,
    key_byte_offsets,
    page_and_token,
    scale_byte_offsets,
    write_bytes,
)
from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.indexer_quantize import SCALE_FORMATS, UE8M0, quantize_head
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, INDEXER_PAGES, PAGE_TOKENS, PRESHUFFLED_PAGE
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import IndexerCache


def reference(
    k: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    scale_format: str,
    page_layout: str,
    element_format: str,
) -> torch.Tensor:
    page_map, stored = INDEXER_PAGES[page_layout], ELEMENT_FORMATS[element_format]
    values, scales = quantize_head(k, stored.maximum, scale_format, stored)
    pages, tokens = page_and_token(slot_mapping)
    page_starts = (pages * page_map.page_bytes(stored.itemsize))[:, None]
    key_bytes = page_starts + key_byte_offsets(page_map, tokens, stored.itemsize)
    with_keys = write_bytes(cache, slot_mapping, key_bytes, elements_to_bytes(values))
    scale_bytes = page_starts + scale_byte_offsets(page_map, tokens, stored.itemsize)
    return write_bytes(with_keys, slot_mapping, scale_bytes, float32_to_bytes(scales[:, None]))


def _fake(k, cache, slot_mapping, scale_format, page_layout, element_format):
    return torch.empty_like(cache)


def store_defines(call: Call) -> tuple[tuple[str, int], ...]:
    """The constants that tell a storing kernel the page layout and the scale format."""
    return (
        ("PRESHUFFLED", int(call["page_layout"] == PRESHUFFLED_PAGE.name)),
        ("POWER_OF_TWO", int(call["scale_format"] == UE8M0)),
    )


_THREADS = 256
_ROWS_PER_WORKGROUP = 16


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows = call["k"].shape[0]
    operands = ("k", "cache", "slot_mapping")
    variant = store_defines(call)
    if not target.has_hip_kernels:
        return Launch(
            "indexer_k_quant_and_cache.cpp",
            "indexer_k_quant_and_cache",
            operands,
            (),
            (rows, 1, 1),
            defines=variant,
        )
    return Launch(
        source="indexer_k_quant_and_cache.hip",
        symbol="indexer_k_quant_and_cache",
        operands=operands,
        constants=(rows,),
        workgroups=(-(-rows // _ROWS_PER_WORKGROUP), 1, 1),
        workgroup_size=(_THREADS, 1, 1),
        defines=variant,
    )


def _touched(call: Call) -> dict[str, int]:
    return {"cache": call["k"].shape[0] * call["cache"].shape[1] // PAGE_TOKENS}


OP = define_op(
    "indexer_k_quant_and_cache(Tensor k, Tensor cache, Tensor slot_mapping, str scale_format, "
    "str page_layout, str element_format) -> Tensor",
    reference,
    _fake,
    in_place={0: "cache"},
    launch=_launch,
    touched=_touched,
)


def require_indexer_cache(consumer: str, cache: IndexerCache, element_format: ElementFormat) -> None:
    """``cache`` must hold whole pages of ``element_format``."""
    page_bytes = cache.page.page_bytes(element_format.itemsize)
    if cache.data.dtype != torch.int8 or cache.data.dim() != 2 or cache.data.shape[1] != page_bytes:
        raise ValueError(
            f"{consumer}: cache {cache.data.dtype}{list(cache.data.shape)}; expected int8 "
            f"[pages, {page_bytes}], pages of 64 tokens in {element_format.name}"
        )


def require_slots(consumer: str, slot_mapping: torch.Tensor, rows: int) -> None:
    """``slot_mapping`` must be int64 [rows]."""
    if slot_mapping.dtype != torch.int64 or list(slot_mapping.shape) != [rows]:
        raise ValueError(
            f"{consumer}: slot_mapping {slot_mapping.dtype}{list(slot_mapping.shape)}; expected int64 "
            f"[{rows}], one slot per row, -1 for a padding row"
        )


def require_store_formats(consumer: str, cache: IndexerCache, scale_format: str) -> None:
    """The cache's page layout and ``scale_format`` must be known ones."""
    if INDEXER_PAGES.get(cache.page.name) != cache.page:
        raise ValueError(f"{consumer}: {cache.page.name} is not one of {', '.join(INDEXER_PAGES)}")
    if scale_format not in SCALE_FORMATS:
        raise ValueError(f"{consumer}: scale format {scale_format!r}; expected one of {', '.join(SCALE_FORMATS)}")


def require_keys(consumer: str, k: torch.Tensor, element_format: ElementFormat) -> None:
    """``k`` must be [T, 128] in the format's activation dtype."""
    if k.dim() != 2 or k.shape[1] != INDEXER_HEAD_DIM or k.dtype != element_format.activation_dtype:
        raise ValueError(
            f"{consumer}: k {k.dtype}{list(k.shape)}; expected {element_format.activation_dtype}[T, {INDEXER_HEAD_DIM}]"
        )


def indexer_k_quant_and_cache(
    k: torch.Tensor,
    cache: IndexerCache,
    slot_mapping: torch.Tensor,
    scale_format: str,
    element_format: ElementFormat,
) -> IndexerCache:
    """Store ``k`` [T, 128] at its slots and return the new cache, laid out as before.

    ``slot_mapping`` int64 [T]: slot = page * 64 + token in the page, -1 stores nothing; real slots differ
    from each other and lie inside the pool. The scale is max(amax, 1e-4) / maximum, rounded up to a power of
    two where ``scale_format`` is "ue8m0", not where it is "float32"; it multiplies when a key is read.
    """
    consumer, rows = "indexer_k_quant_and_cache", k.shape[0]
    require_indexer_cache(consumer, cache, element_format)
    require_slots(consumer, slot_mapping, rows)
    require_store_formats(consumer, cache, scale_format)
    require_keys(consumer, k, element_format)
    data = torch.ops.predecode.indexer_k_quant_and_cache(
        k, cache.data, slot_mapping, scale_format, cache.page.name, element_format.name
    )
    return IndexerCache(data, cache.page)
