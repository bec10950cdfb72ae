"""What the ops with block-scaled weights share: checks of their arguments."""

import torch

from predecode.custom_kernels.layouts import (
    GROUP,
    GROUP_MAJOR_SCALES,
    TILE,
    TILED_16X16,
    require_layout,
)
from predecode.custom_kernels.op import Call
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation


def require_block_scales(consumer: str, weight: BlockScaledWeight) -> int:
    """K of a tiled ``weight`` [..., N/16, K/16, 16, 16], a multiple of 128; its scales must fit."""
    require_layout(consumer, "weight", weight.layout, TILED_16X16, "pack it with TILED_16X16.pack when it is loaded")
    *batch, bands, tiles, tile_rows, tile_columns = weight.values.shape
    rows, columns = bands * TILE, tiles * TILE
    scales = [*batch, -(-rows // GROUP), columns // GROUP]
    tiled = (tile_rows, tile_columns) == (TILE, TILE) and columns % GROUP == 0
    if not tiled or list(weight.scales.shape) != scales:
        raise ValueError(
            f"{consumer}: weight values {list(weight.values.shape)}, scales {list(weight.scales.shape)}; "
            f"expected [..., N/16, K/16, 16, 16] with K a multiple of {GROUP}, and one scale per "
            f"{GROUP} x {GROUP} block"
        )
    return columns


def require_quantized_rows(consumer: str, x: QuantizedActivation, rows: int | None, weight: BlockScaledWeight) -> None:
    """Refuse ``x`` unless it is [rows, K] in the dtype of ``weight``, K being the weight's.

    Its scales must be group-major. ``rows`` is None where any number will do.
    """
    require_layout(
        consumer, "the activation's scales", x.layout, GROUP_MAJOR_SCALES, "quantise with group-major scales"
    )
    columns = require_block_scales(consumer, weight)
    rows = x.values.shape[0] if rows is None else rows
    if list(x.values.shape) != [rows, columns] or list(x.scales.shape) != [columns // GROUP, rows]:
        raise ValueError(
            f"{consumer}: activation {list(x.values.shape)}, scales {list(x.scales.shape)}; expected "
            f"[{rows}, {columns}] and [{columns // GROUP}, {rows}], as the other arguments ask"
        )
    if x.values.dtype != weight.values.dtype:
        raise TypeError(
            f"{consumer}: activation {x.values.dtype} and weight {weight.values.dtype} differ; quantise both "
            "in the target's element format"
        )


def require_expert_ids(consumer: str, expert_ids: torch.Tensor, weight: BlockScaledWeight) -> tuple[int, int]:
    """(T, k) of the router's int32 ``expert_ids`` [T, k]; ``weight`` must have a leading axis of experts."""
    if expert_ids.dim() != 2 or expert_ids.dtype != torch.int32:
        raise TypeError(f"{consumer}: expert ids are {expert_ids.dtype}{list(expert_ids.shape)}, expected int32 [T, k]")
    if weight.values.dim() != 5:
        raise ValueError(
            f"{consumer}: weight values {list(weight.values.shape)} have no experts; expected [E, N/16, K/16, 16, 16]"
        )
    rows, experts_per_row = expert_ids.shape
    return rows, experts_per_row


def touched_experts(call: Call) -> dict[str, int]:
    """Most bytes of the expert weights and scales that a call reads: each routed pair its own expert.

    The call's ``shared_experts``, which all rows use, count once.
    """
    experts, shared = call["weight"].shape[0], call["shared_experts"]
    rows, experts_per_row = call["expert_ids"].shape
    touched = rows * (experts_per_row - shared) + shared
    return {name: touched * call[name].nbytes // experts for name in ("weight", "weight_scales")}
