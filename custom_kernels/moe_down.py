"""Second matrix of the routed experts, and the weighted sum over the experts of a row.

Source: stage 2 of aiter `fused_moe`; the sum is taken in float32, in an order that the row alone decides, and rounded
once, instead of by bfloat16 atomics.
"""

import torch

from predecode.custom_kernels.block_scaled import require_expert_ids, require_quantized_rows, touched_experts
from predecode.custom_kernels.expert_workgroups import THREADS, row_block
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, TILE
from predecode.custom_kernels.moe_gate_up import expert_products
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_groups
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation

CPU_BANDS = 8
"""Bands of a workgroup on the CPU."""
LANE_BYTES = 16
FRAGMENT_COLUMNS = 64
"""Columns of which the lanes of a wave hold LANE_BYTES each: those of a part's rows."""
MOST_PARTS = 4
"""Parts of a workgroup whose loads fit in a lane's registers."""


def reference(
    values: torch.Tensor,
    scales: torch.Tensor,
    expert_ids: torch.Tensor,
    expert_weights: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
    shared_experts: int,
) -> torch.Tensor:
    rows, experts_per_row = expert_ids.shape
    u = dequantize_groups(values, GROUP_MAJOR_SCALES.unpack(scales)).reshape(rows, experts_per_row, -1)
    sums = []
    for t in range(rows):
        weighted = expert_products(u[t], expert_ids[t], weight, weight_scales) * expert_weights[t][:, None]
        total = weighted[0]
        for j in range(1, experts_per_row):
            total = total + weighted[j]
        sums.append(total)
    return torch.stack(sums).to(FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _fake(values, scales, expert_ids, expert_weights, weight, weight_scales, shared_experts):
    shape = (expert_ids.shape[0], weight.shape[1] * TILE)
    return values.new_empty(shape, dtype=FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    columns = call["values"].shape[1]
    rows, experts_per_row = call["expert_ids"].shape
    experts, bands = call["weight"].shape[:2]
    operands = ("values", "scales", "expert_ids", "expert_weights", "weight", "weight_scales")
    if not target.has_hip_kernels:
        constants = (rows, experts_per_row, bands, columns)
        defines = (("MOST_BANDS", CPU_BANDS),)
        workgroups = (-(-bands // CPU_BANDS), rows, 1)
        return Launch("moe_down.cpp", "moe_down", operands, constants, workgroups, defines=defines)
    block = row_block(experts_per_row)
    if block is None:
        return None
    part_rows = target.wave_size * LANE_BYTES // FRAGMENT_COLUMNS
    parts = bands * TILE // part_rows
    workgroup_parts = min(-(-parts // (RESIDENT_PER_UNIT * target.compute_units)), MOST_PARTS)
    return Launch(
        source="moe_down.hip",
        symbol="moe_down",
        operands=operands,
        constants=(),
        workgroups=(-(-parts // workgroup_parts), -(-rows // block), 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(
            ("ROWS", rows),
            ("EXPERTS_PER_ROW", experts_per_row),
            ("EXPERTS", experts),
            ("BANDS", bands),
            ("COLUMNS", columns),
            ("ROW_BLOCK", block),
            ("WORKGROUP_PARTS", workgroup_parts),
        ),
        workgroups_per_unit=RESIDENT_PER_UNIT,
        reads_early=("expert_ids", "expert_weights", "weight", "weight_scales"),
    )


OP = define_op(
    "moe_down(Tensor values, Tensor scales, Tensor expert_ids, Tensor expert_weights, Tensor weight, "
    "Tensor weight_scales, int shared_experts) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=touched_experts,
)


def moe_down(
    u: QuantizedActivation,
    expert_ids: torch.Tensor,
    expert_weights: torch.Tensor,
    weight: BlockScaledWeight,
    *,
    shared_experts: int,
) -> torch.Tensor:
    """``y[t] = sum_j expert_weights[t, j] * (W[expert_ids[t, j]] u[t*k + j])``, in float32, rounded once.

    ``u`` [T*k, I] with group-major scales. ``expert_ids`` int32 [T, k], each in [0, E), the last ``shared_experts`` of
    a row being those of every row; an expert that a row has twice is added twice, in either order. ``expert_weights``
    float32 [T, k]; ``weight`` tiled [E, N/16, I/16, 16, 16] with scales [E, ceil(N/128), I/128]. Returns [T, N] in the
    format's activation dtype.
    """
    rows, experts_per_row = require_expert_ids("moe_down", expert_ids, weight)
    if expert_weights.shape != expert_ids.shape or expert_weights.dtype != torch.float32:
        raise TypeError(
            f"moe_down: expert weights are {expert_weights.dtype}{list(expert_weights.shape)}, expected "
            f"float32 {list(expert_ids.shape)} like the expert ids"
        )
    require_quantized_rows("moe_down", u, rows * experts_per_row, weight)
    return torch.ops.predecode.moe_down(
        u.values, u.scales, expert_ids, expert_weights, weight.values, weight.scales, shared_experts
    )
