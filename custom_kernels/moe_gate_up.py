"""First matrix of the routed experts: gate and up projections of every (row, expert) pair.

Source: stage 1 of aiter `fused_moe` (per_1x128 activations, 128 x 128 weight blocks), without its sorting: pairs
stay in the order of the router's ids.
"""

import torch

from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.gemm_fp8_blockscale import (
    block_scaled_launch_shape,
    require_block_scales,
    require_quantized_rows,
)
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, TILE, TILED_16X16
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_blocks, dequantize_groups
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation


def expert_weights_of(
    expert_ids: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor
) -> torch.Tensor:
    """float32 [pairs, N, K]: the dequantised expert of every pair, ``expert_ids`` [pairs]."""
    return dequantize_blocks(TILED_16X16.unpack(weight[expert_ids]), weight_scales[expert_ids])


def reference(
    values: torch.Tensor,
    scales: torch.Tensor,
    expert_ids: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
) -> torch.Tensor:
    x = dequantize_groups(values, GROUP_MAJOR_SCALES.unpack(scales))
    rows = [
        x[t] @ expert_weights_of(expert_ids[t], weight, weight_scales).transpose(1, 2) for t in range(len(x))
    ]
    return torch.cat(rows).to(FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _fake(values, scales, expert_ids, weight, weight_scales):
    shape = (expert_ids.shape[0] * expert_ids.shape[1], weight.shape[1] * TILE)
    return values.new_empty(shape, dtype=FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    if not target.has_hip_kernels:
        return None
    columns = call["values"].shape[1]
    rows, experts_per_row = call["expert_ids"].shape
    bands = call["weight"].shape[1]
    row_tiles, waves = block_scaled_launch_shape(rows, columns)
    pairs = rows * experts_per_row
    return Launch(
        source="moe_gate_up.hip",
        symbol="moe_gate_up",
        operands=("values", "scales", "expert_ids", "weight", "weight_scales"),
        constants=(rows, experts_per_row, bands, columns),
        workgroups=(bands, pairs, 1),
        workgroup_size=(waves * target.wave_size, 1, 1),
        defines=(("ROW_TILES", row_tiles), ("WAVES", waves)),
    )


OP = define_op(
    "moe_gate_up(Tensor values, Tensor scales, Tensor expert_ids, Tensor weight, Tensor weight_scales) -> Tensor",
    reference,
    _fake,
    launch=_launch,
)


def require_expert_ids(consumer: str, expert_ids: torch.Tensor, weight: BlockScaledWeight) -> tuple[int, int]:
    """(T, k) of the router's int32 ``expert_ids`` [T, k]; ``weight`` must hold a leading axis of experts."""
    if expert_ids.dim() != 2 or expert_ids.dtype != torch.int32:
        raise TypeError(
            f"{consumer}: expert ids are {expert_ids.dtype}{list(expert_ids.shape)}, expected int32 [T, k]"
        )
    if weight.values.dim() != 5:
        raise ValueError(
            f"{consumer}: weight values {list(weight.values.shape)} have no experts; expected "
            "[E, N/16, K/16, 16, 16]"
        )
    rows, experts_per_row = expert_ids.shape
    return rows, experts_per_row


def moe_gate_up(x: QuantizedActivation, expert_ids: torch.Tensor, weight: BlockScaledWeight) -> torch.Tensor:
    """``h[t*k + j] = W[expert_ids[t, j]] x[t]``, accumulated in float32, rounded once.

    ``x`` [T, K] with group-major scales; ``expert_ids`` int32 [T, k], each in [0, E); ``weight`` tiled
    [E, 2I/16, K/16, 16, 16] (gate rows, then up rows) with scales [E, ceil(2I/128), K/128]. Returns [T*k, 2I] in
    the format's activation dtype.
    """
    rows, _ = require_expert_ids("moe_gate_up", expert_ids, weight)
    _, columns = require_block_scales("moe_gate_up", weight)
    if require_quantized_rows("moe_gate_up", x, columns, weight) != rows:
        raise ValueError(f"moe_gate_up: {x.values.shape[0]} activation rows, but expert ids for {rows}")
    return torch.ops.predecode.moe_gate_up(x.values, x.scales, expert_ids, weight.values, weight.scales)
