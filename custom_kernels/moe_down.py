"""Second matrix of the routed experts, and the weighted sum over the experts of a row.

Source: the `per_1x128` quantisation and stage 2 of aiter `fused_moe`; the sum is taken in float32, in an order that
the row alone decides, and rounded once, instead of by bfloat16 atomics.
"""

import torch

from predecode.custom_kernels.block_scaled import require_block_scales, require_expert_ids, touched_experts
from predecode.custom_kernels.expert_workgroups import THREADS, row_block
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import TILE
from predecode.custom_kernels.moe_gate_up import expert_products
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_groups, quantize_groups
from predecode.custom_kernels.require import require_tensor
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target
from predecode.custom_kernels.values import BlockScaledWeight

CPU_BANDS = 8
"""Bands of a workgroup on the CPU, which quantises the row's activations for each workgroup anew."""


def reference(
    activated: torch.Tensor,
    expert_ids: torch.Tensor,
    expert_weights: torch.Tensor,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
) -> torch.Tensor:
    rows, experts_per_row = expert_ids.shape
    quantized = quantize_groups(activated.float(), FORMAT_OF_DTYPE[weight.dtype])
    u = dequantize_groups(*quantized).reshape(rows, experts_per_row, -1)
    sums = []
    for t in range(rows):
        weighted = expert_products(u[t], expert_ids[t], weight, weight_scales) * expert_weights[t][:, None]
        total = weighted[0]
        for j in range(1, experts_per_row):
            total = total + weighted[j]
        sums.append(total)
    return torch.stack(sums).to(activated.dtype)


def _fake(activated, expert_ids, expert_weights, weight, weight_scales):
    return activated.new_empty((expert_ids.shape[0], weight.shape[1] * TILE))


def _launch(target: Target, call: Call) -> Launch | None:
    columns = call["activated"].shape[1]
    rows, experts_per_row = call["expert_ids"].shape
    experts, bands = call["weight"].shape[:2]
    operands = ("activated", "expert_ids", "expert_weights", "weight", "weight_scales")
    if not target.has_hip_kernels:
        constants = (rows, experts_per_row, bands, columns)
        defines = (("MOST_BANDS", CPU_BANDS), ("MOST_COLUMNS", columns))
        workgroups = (-(-bands // CPU_BANDS), rows, 1)
        return Launch("moe_down.cpp", "moe_down", operands, constants, workgroups, defines=defines)
    block = row_block(experts_per_row)
    if block is None:
        return None
    workgroup_bands = -(-bands // (RESIDENT_PER_UNIT * target.compute_units))
    return Launch(
        source="moe_down.hip",
        symbol="moe_down",
        operands=operands,
        constants=(),
        workgroups=(-(-bands // workgroup_bands), -(-rows // block), 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(
            ("ROWS", rows),
            ("EXPERTS_PER_ROW", experts_per_row),
            ("EXPERTS", experts),
            ("BANDS", bands),
            ("COLUMNS", columns),
            ("ROW_BLOCK", block),
            ("WORKGROUP_BANDS", workgroup_bands),
        ),
        workgroups_per_unit=RESIDENT_PER_UNIT,
    )


OP = define_op(
    "moe_down(Tensor activated, Tensor expert_ids, Tensor expert_weights, Tensor weight, Tensor weight_scales) "
    "-> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=touched_experts,
)


def moe_down(
    activated: torch.Tensor, expert_ids: torch.Tensor, expert_weights: torch.Tensor, weight: BlockScaledWeight
) -> torch.Tensor:
    """``y[t] = sum_j expert_weights[t, j] * (W[expert_ids[t, j]] u[t*k + j])``, in float32, rounded once.

    ``u`` is ``activated`` [T*k, I], in the activation dtype, quantised in groups of 128 columns. ``expert_ids``
    int32 [T, k], each in [0, E); ``expert_weights`` float32 [T, k]; ``weight`` tiled [E, N/16, I/16, 16, 16] with
    scales [E, ceil(N/128), I/128]. Returns [T, N] in the activation dtype.
    """
    rows, experts_per_row = require_expert_ids("moe_down", expert_ids, weight)
    if expert_weights.shape != expert_ids.shape or expert_weights.dtype != torch.float32:
        raise TypeError(
            f"moe_down: expert weights are {expert_weights.dtype}{list(expert_weights.shape)}, expected "
            f"float32 {list(expert_ids.shape)} like the expert ids"
        )
    dtype = FORMAT_OF_DTYPE[weight.values.dtype].activation_dtype
    shape = (rows * experts_per_row, require_block_scales("moe_down", weight))
    require_tensor("moe_down", "activated", activated, dtype, shape)
    return torch.ops.predecode.moe_down(activated, expert_ids, expert_weights, weight.values, weight.scales)
