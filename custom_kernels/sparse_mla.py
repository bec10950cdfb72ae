"""Attention of absorbed MLA queries over the selected slots of the latent cache.

Source: SGLang `tilelang_sparse_fwd` in FP8 (no scales: values stand for themselves), with the probabilities
left unquantised.
"""

from math import gcd

import torch

from predecode.custom_kernels.cache_bytes import bytes_to_elements
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import PAGE_TOKENS
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import LatentCache

THREADS = 256
HEADS = 8
"""Most heads of one GPU workgroup, which reads the selected slots once for all of them."""
CPU_HEADS = 16
"""The same of a CPU workgroup."""
COLUMN_MULTIPLE = 16
"""Kernels read 16 columns at a time."""


def reference(
    query: torch.Tensor, cache: torch.Tensor, slots: torch.Tensor, value_dim: int, scale: float
) -> torch.Tensor:
    element_format, width = FORMAT_OF_DTYPE[query.dtype], query.shape[2]
    valid = slots >= 0
    rows = cache.reshape(-1, width * element_format.itemsize)[slots.clamp_min(0).long()]
    # Invalid entries read slot 0, which may hold NaN: they leave both products as zeros.
    keys = torch.where(valid[..., None], bytes_to_elements(rows, element_format).float(), 0.0)
    scores = torch.bmm(query.float(), keys.transpose(1, 2)) * scale
    scores = torch.where(valid[:, None], scores, float("-inf"))
    largest = torch.where(valid.any(1)[:, None], scores.amax(2), 0.0)
    weights = torch.exp(scores - largest[..., None])
    total = weights.sum(2, keepdim=True)
    output = torch.bmm(weights, keys[..., :value_dim]) / torch.where(total == 0, 1.0, total)
    return output.to(element_format.activation_dtype)


def _fake(query, cache, slots, value_dim, scale):
    dtype = FORMAT_OF_DTYPE[query.dtype].activation_dtype
    return query.new_empty((*query.shape[:2], value_dim), dtype=dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    rows, heads, width = call["query"].shape
    value_dim, topk = call["value_dim"], call["slots"].shape[1]
    quantized = FORMAT_OF_DTYPE[call["query"].dtype] == target.element_format
    if not quantized or width % COLUMN_MULTIPLE or value_dim % COLUMN_MULTIPLE:
        return None
    operands, constants = ("query", "cache", "slots"), (heads, topk, float_bits(call["scale"]))
    widths = (("WIDTH", width), ("VALUE_DIM", value_dim))
    if not target.has_hip_kernels:
        groups = -(-heads // CPU_HEADS)
        return Launch("sparse_mla.cpp", "sparse_mla", operands, constants, (groups, rows, 1), defines=widths)
    together = gcd(heads, HEADS)
    while together > 1 and rows * heads // together < target.compute_units:
        together //= 2  # few rows: rather more workgroups than fewer reads
    return Launch(
        source="sparse_mla.hip",
        symbol="sparse_mla",
        operands=operands,
        constants=constants,
        workgroups=(rows, heads // together, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("HEADS", together), *widths),
    )


def _touched(call: Call) -> dict[str, int]:
    return {"cache": call["slots"].numel() * call["cache"].shape[1] // PAGE_TOKENS}


OP = define_op(
    "sparse_mla(Tensor query, Tensor cache, Tensor slots, int value_dim, float scale) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def sparse_mla(
    query: torch.Tensor, cache: LatentCache, slots: torch.Tensor, value_dim: int, scale: float
) -> torch.Tensor:
    """``softmax_j(scale * query[t, h] . row_j) @ row_j[:value_dim]`` over the cache rows j in ``slots[t]``.

    ``query`` [T, h, W] in an element format, W = latent + rope columns; ``cache`` with rows of W elements of
    that format; ``slots`` int32 [T, topk], where -1 is no slot (and no slot at all gives zeros). Returns bf16
    [T, h, value_dim], float32 where the format does not quantise; accumulated in float32.
    """
    element_format = FORMAT_OF_DTYPE.get(query.dtype)
    if element_format is None:
        expected = ", ".join(str(dtype) for dtype in FORMAT_OF_DTYPE)
        raise ValueError(f"sparse_mla: query is {query.dtype}, expected one of {expected}")
    require_tensor("sparse_mla", "query", query, query.dtype, ("T", "h", "W"))
    rows, _, width = query.shape
    page_bytes = PAGE_TOKENS * width * element_format.itemsize
    require_tensor("sparse_mla", "cache", cache.data, torch.int8, ("pages", page_bytes))
    require_tensor("sparse_mla", "slots", slots, torch.int32, (rows, "topk"))
    if not 0 < value_dim <= width:
        raise ValueError(f"sparse_mla: value_dim is {value_dim}, expected 1 to the query's {width} columns")
    return torch.ops.predecode.sparse_mla(query, cache.data, slots, value_dim, scale)
