"""RMSNorm of the sum of few rows and their residual, and partial sums of an unquantised product.

Source: aiter `fused_rms_fp8_group_quant` with ``res1`` (its unquantised twin) followed by `linear_bf16`, up to the sum
over the columns. The rows are rounded to bfloat16 before they are divided by their size, not after.
"""

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import TILE
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.skinny_tile import MOST_ROWS
from predecode.custom_kernels.split_k import SLICES, join_partials, slices_of
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target

BAND_WAVES = 2
"""Waves of a workgroup that share 16 outputs."""
STEP_COLUMNS = 16
"""Columns that a wave multiplies in one step."""


def reference(x: torch.Tensor, residual: torch.Tensor, norm_weight: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    rows = x.float() + residual.float()
    weighed, weights = (rows * norm_weight.float()).to(x.dtype).float(), weight.float()
    terms = slices_of(weighed).transpose(0, 1) @ slices_of(weights).permute(1, 2, 0)
    return join_partials(terms, slices_of(rows.square()).sum(2).T / rows.shape[1])


def _fake(x, residual, norm_weight, weight):
    terms, mean_squares = (SLICES, len(x), len(weight)), (SLICES, len(x))
    return join_partials(*(x.new_empty(shape, dtype=torch.float32) for shape in (terms, mean_squares)))


def _launch(target: Target, call: Call) -> Launch | None:
    (rows, columns), outputs = call["x"].shape, call["weight"].shape[0]
    if not target.has_hip_kernels or rows > MOST_ROWS or call["x"].dtype != target.element_format.activation_dtype:
        return None
    tile_outputs = THREADS // target.wave_size // BAND_WAVES * TILE
    if columns % (SLICES * STEP_COLUMNS) or outputs % tile_outputs:
        return None
    return Launch(
        source="add_normed_linear_split_k.hip",
        symbol="add_normed_linear_split_k",
        operands=("x", "residual", "norm_weight", "weight"),
        constants=(),
        workgroups=(outputs // tile_outputs * SLICES, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROWS", rows), ("COLUMNS", columns), ("OUTPUTS", outputs), ("SLICES", SLICES)),
        workgroups_per_unit=RESIDENT_PER_UNIT,
        reads_early=("norm_weight", "weight"),
    )


OP = define_op(
    "add_normed_linear_split_k(Tensor x, Tensor residual, Tensor norm_weight, Tensor weight) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    reads_reduced=True,
)
"""Terms of ``rms_norm(x + residual) @ weight.T`` before the rows are divided by their size, by slice of the columns.

``x`` and ``residual`` bf16 [T, K], ``norm_weight`` bf16 [K], ``weight`` bf16 [N, K], K a multiple of 32 * 16. Returns
float32 [32, T * (N + 1)], laid out by `join_partials`: the terms of each slice of K / 32 columns, and its share of the
mean of the squares of each row of ``x + residual``.
"""
