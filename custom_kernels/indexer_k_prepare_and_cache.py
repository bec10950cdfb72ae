"""The indexer's keys from their projection to the paged cache: LayerNorm, both rotations, quantisation, store.

Source: SGLang's NSA indexer (`k_norm`, rotary embedding of the first dimensions, `rotate_activation`), then aiter
`indexer_k_quant_and_cache`.
"""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.indexer_k_quant_and_cache import reference as store_reference
from predecode.custom_kernels.indexer_k_quant_and_cache import (
    require_indexer_cache,
    require_keys,
    require_slots,
    require_store_formats,
    store_defines,
)
from predecode.custom_kernels.indexer_rotation import INDEXER_ROPE_DIM, rope_and_hadamard
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import INDEXER_HEAD_DIM, PAGE_TOKENS
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.rope import require_rope_layout, require_rope_rows, rope_define
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import IndexerCache

_THREADS = 256
_ROWS_PER_WORKGROUP = 16


def prepared_keys(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    rope_layout: str,
) -> torch.Tensor:
    """``k`` [T, 128] normed and rotated, rounded to its dtype after each of the three steps."""
    x = k.float()
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    normed = centred * torch.rsqrt(variance + epsilon) * weight.float() + bias.float()
    return rope_and_hadamard(normed.to(k.dtype)[:, None], rope_table, positions, rope_layout)[:, 0]


def reference(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: torch.Tensor,
    slot_mapping: torch.Tensor,
    rope_layout: str,
    scale_format: str,
    page_layout: str,
    element_format: str,
) -> torch.Tensor:
    prepared = prepared_keys(k, weight, bias, epsilon, rope_table, positions, rope_layout)
    return store_reference(prepared, cache, slot_mapping, scale_format, page_layout, element_format)


def _fake(
    k,
    weight,
    bias,
    epsilon,
    rope_table,
    positions,
    cache,
    slot_mapping,
    rope_layout,
    scale_format,
    page_layout,
    element_format,
):
    return torch.empty_like(cache)


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    if {call[name].dtype for name in ("k", "weight", "bias")} != {torch.bfloat16}:
        return None
    rows, epsilon = call["k"].shape[0], float_bits(call["epsilon"])
    operands = ("k", "weight", "bias", "rope_table", "positions", "cache", "slot_mapping")
    defines = (rope_define(call["rope_layout"]), *store_defines(call))
    if not target.has_hip_kernels:
        return Launch(
            source="indexer_k_prepare_and_cache.cpp",
            symbol="indexer_k_prepare_and_cache",
            operands=operands,
            constants=(epsilon,),
            workgroups=(rows, 1, 1),
            defines=(("ROPE_DIM", call["rope_table"].shape[1]), *defines),
        )
    return Launch(
        source="indexer_k_prepare_and_cache.hip",
        symbol="indexer_k_prepare_and_cache",
        operands=operands,
        constants=(rows, epsilon),
        workgroups=(-(-rows // _ROWS_PER_WORKGROUP), 1, 1),
        workgroup_size=(_THREADS, 1, 1),
        defines=defines,
    )


def _touched(call: Call) -> dict[str, int]:
    rows = call["k"].shape[0]
    return {
        "cache": rows * call["cache"].shape[1] // PAGE_TOKENS,
        "rope_table": rows * call["rope_table"].shape[1] * 4,
    }


OP = define_op(
    "indexer_k_prepare_and_cache(Tensor k, Tensor weight, Tensor bias, float epsilon, Tensor rope_table, "
    "Tensor positions, Tensor cache, Tensor slot_mapping, str rope_layout, str scale_format, str page_layout, "
    "str element_format) -> Tensor",
    reference,
    _fake,
    in_place={0: "cache"},
    launch=_launch,
    touched=_touched,
)


def indexer_k_prepare_and_cache(
    k: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    rope_table: torch.Tensor,
    positions: torch.Tensor,
    cache: IndexerCache,
    slot_mapping: torch.Tensor,
    rope_layout: str,
    scale_format: str,
    element_format: ElementFormat,
) -> IndexerCache:
    """Norm and rotate ``k`` [T, 128], store it as `indexer_k_quant_and_cache` does, and return the new cache.

    ``weight`` and ``bias`` [128] are the LayerNorm's, ``rope_table`` float32 [max positions, 64], ``positions``
    int64 [T], ``rope_layout`` "interleaved" or "halves". LayerNorm, rope and Hadamard each round to k's dtype.
    """
    op, rows = "indexer_k_prepare_and_cache", k.shape[0]
    require_rope_layout(op, rope_layout)
    require_rope_rows(op, rope_table, positions, rows, INDEXER_ROPE_DIM)
    require_indexer_cache(op, cache, element_format)
    require_slots(op, slot_mapping, rows)
    require_store_formats(op, cache, scale_format)
    require_keys(op, k, element_format)
    if {weight.shape, bias.shape} != {(INDEXER_HEAD_DIM,)}:
        raise ValueError(
            f"{op}: weight {list(weight.shape)} and bias {list(bias.shape)}; expected [{INDEXER_HEAD_DIM}] twice"
        )
    data = torch.ops.predecode.indexer_k_prepare_and_cache(
        k,
        weight,
        bias,
        epsilon,
        rope_table,
        positions,
        cache.data,
        slot_mapping,
        rope_layout,
        scale_format,
        cache.page.name,
        element_format.name,
    )
    return IndexerCache(data, cache.page)
