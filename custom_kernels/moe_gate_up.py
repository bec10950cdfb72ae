"""First matrix of the routed experts and its gate: ``silu(gate) * up`` of every (row, expert) pair.

Source: stage 1 of aiter `fused_moe` (per_1x128 activations, 128 x 128 weight blocks) and its `silu_and_mul`; pairs
stay in the order of the router's ids.
"""

import torch

from predecode.custom_kernels.block_scaled import (
    require_expert_ids,
    require_quantized_rows,
    touched_experts,
)
from predecode.custom_kernels.expert_workgroups import THREADS, row_block
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES, TILE
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_groups
from predecode.custom_kernels.silu import silu_mul
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation

SLICE = TILE // 2
"""Columns of the result that a workgroup makes at a time: as many gate rows and up rows fill a tile."""


def expert_products(
    x: torch.Tensor, expert_ids: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor
) -> torch.Tensor:
    """float32 [k, N]: the dequantised matrix of expert ``expert_ids[j]`` times ``x[j]``.

    ``x`` float32 [k or 1, K]. Multiplied and summed tile by tile, as stored: turning the tiles into rows
    first would move every weight twice.
    """
    experts = expert_ids.long()
    tiles = weight[experts].float()
    _, bands, columns, _, _ = tiles.shape
    scales = weight_scales[experts].repeat_interleave(GROUP // TILE, 1)[:, :bands]
    scales = scales.repeat_interleave(GROUP // TILE, 2)[..., None, None]
    products = tiles * x.reshape(-1, 1, columns, 1, TILE) * scales
    return products.sum((2, 4)).reshape(len(experts), bands * TILE)


def reference(
    values: torch.Tensor,
    scales: torch.Tensor,
    expert_ids: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    shared_experts: int,
) -> torch.Tensor:
    x = dequantize_groups(values, GROUP_MAJOR_SCALES.unpack(scales))
    # Row by row: the experts of all rows at once would not fit in memory at true sizes.
    rows = [expert_products(x[t], expert_ids[t], weight, weight_scales) for t in range(len(x))]
    return silu_mul(torch.cat(rows).to(FORMAT_OF_DTYPE[values.dtype].activation_dtype))


def _fake(values, scales, expert_ids, weight, weight_scales, shared_experts):
    shape = (expert_ids.shape[0] * expert_ids.shape[1], weight.shape[1] * TILE // 2)
    return values.new_empty(shape, dtype=FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    columns = call["values"].shape[1]
    rows, experts_per_row = call["expert_ids"].shape
    experts, bands = call["weight"].shape[:2]
    operands = ("values", "scales", "expert_ids", "weight", "weight_scales")
    if not target.has_hip_kernels:
        constants = (rows, experts_per_row, bands * TILE // 2, columns)
        return Launch("moe_gate_up.cpp", "moe_gate_up", operands, constants, (bands // 2, experts, 1))
    block = row_block(experts_per_row)
    if block is None:
        return None
    units = min(rows, block) * experts_per_row * (bands * TILE // 2 // SLICE)
    workgroups = min(RESIDENT_PER_UNIT * target.compute_units, units)
    return Launch(
        source="moe_gate_up.hip",
        symbol="moe_gate_up",
        operands=operands,
        constants=(),
        workgroups=(workgroups, -(-rows // block), 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(
            ("ROWS", rows),
            ("EXPERTS_PER_ROW", experts_per_row),
            ("EXPERTS", experts),
            ("BANDS", bands),
            ("COLUMNS", columns),
            ("ROW_BLOCK", block),
            ("WORKGROUPS", workgroups),
        ),
        workgroups_per_unit=RESIDENT_PER_UNIT,
    )


OP = define_op(
    "moe_gate_up(Tensor values, Tensor scales, Tensor expert_ids, Tensor weight, Tensor weight_scales, "
    "int shared_experts) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=touched_experts,
)


def moe_gate_up(
    x: QuantizedActivation, expert_ids: torch.Tensor, weight: BlockScaledWeight, *, shared_experts: int
) -> torch.Tensor:
    """``h[t*k + j] = silu(g) * u`` with ``(g, u) = W[expert_ids[t, j]] x[t]``.

    The products are accumulated in float32 and rounded to the activation dtype, as is the result. ``x`` [T, K] with
    group-major scales; ``expert_ids`` int32 [T, k], each in [0, E), the last ``shared_experts`` of a row being those
    of every row; ``weight`` tiled [E, 2I/16, K/16, 16, 16] (gate rows, then up rows; I a multiple of 16) with scales
    [E, ceil(2I/128), K/128]. Returns [T*k, I] in the format's activation dtype.
    """
    rows, _ = require_expert_ids("moe_gate_up", expert_ids, weight)
    require_quantized_rows("moe_gate_up", x, rows, weight)
    if weight.values.shape[1] % 2:
        raise ValueError(
            f"moe_gate_up: weight of {weight.values.shape[1]} bands of 16 rows; expected an even number, half of them "
            "the gate's"
        )
    return torch.ops.predecode.moe_gate_up(x.values, x.scales, expert_ids, weight.values, weight.scales, shared_experts)
