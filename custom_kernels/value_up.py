"""Bring attention outputs from the latent space to the value heads with the value half of kv_b.

The weight is used as `absorb_query` uses it: the checkpoint's own FP8 blocks and scales.
"""

import torch

from predecode.custom_kernels.absorb_query import kv_b_heads
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import ROW_MAJOR, require_layout
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import BlockScaledWeight

THREADS = 256
ROWS_PER_WORKGROUP = 4
ELEMENTS_PER_LANE = 16


def reference(
    attention: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor, nope_dim: int
) -> torch.Tensor:
    value_rows = kv_b_heads(weight, weight_scales)[:, nope_dim:]
    heads = torch.bmm(attention.float().transpose(0, 1), value_rows.transpose(1, 2))
    return heads.transpose(0, 1).contiguous().to(attention.dtype)


def _fake(attention, weight, weight_scales, nope_dim):
    rows, heads, _ = attention.shape
    return attention.new_empty((rows, heads, weight.shape[1] - nope_dim))


def _launch(target: Target, call: Call) -> Launch | None:
    heads, rows_per_head, latent = call["weight"].shape
    rows, dims = call["attention"].shape[0], rows_per_head - call["nope_dim"]
    operands = ("attention", "weight", "weight_scales")
    if FORMAT_OF_DTYPE[call["weight"].dtype] != target.element_format or latent % ELEMENTS_PER_LANE:
        return None
    if not target.has_hip_kernels:
        return Launch(
            source="value_up.cpp",
            symbol="value_up",
            operands=operands,
            constants=(heads, rows_per_head, call["nope_dim"]),
            workgroups=(heads, rows, 1),
            defines=(("LATENT", latent),),
        )
    lanes = latent // ELEMENTS_PER_LANE
    # A weight row is shared by a power of two of lanes of one wave.
    if lanes & (lanes - 1) or lanes > target.wave_size:
        return None
    return Launch(
        source="value_up.hip",
        symbol="value_up",
        operands=operands,
        constants=(rows, heads, rows_per_head, call["nope_dim"]),
        workgroups=(-(-dims * lanes // THREADS), heads, -(-rows // ROWS_PER_WORKGROUP)),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROW_LANES", lanes),),
    )


def _touched(call: Call) -> dict[str, int]:
    heads, rows_per_head, latent = call["weight"].shape
    return {"weight": heads * (rows_per_head - call["nope_dim"]) * latent}


OP = define_op(
    "value_up(Tensor attention, Tensor weight, Tensor weight_scales, int nope_dim) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def value_up(attention: torch.Tensor, weight: BlockScaledWeight, nope_dim: int) -> torch.Tensor:
    """``out[t, h, j] = sum_l attention[t, h, l] * w[h, nope_dim + j, l]``, accumulated in float32.

    ``attention`` [T, h, L]; ``weight`` row-major [h, nope_dim + v, L] with scales float32
    [ceil(h * (nope_dim + v) / 128), ceil(L / 128)]. Returns [T, h, v] in ``attention``'s dtype.
    """
    require_layout("value_up", "weight", weight.layout, ROW_MAJOR, "kv_b is stored unpacked")
    heads, rows, latent = weight.values.shape
    if tuple(attention.shape[1:]) != (heads, latent) or not 0 <= nope_dim < rows:
        raise ValueError(
            f"value_up: attention is {list(attention.shape)} with nope_dim {nope_dim}, expected "
            f"[T, {heads}, {latent}] and nope_dim below {rows}"
        )
    return torch.ops.predecode.value_up(attention, weight.values, weight.scales, nope_dim)
