"""RMSNorm of few rows and an unquantised product, without waiting for whoever else normalises them.

Source: aiter `fused_rms_fp8_group_quant` (its unquantised twin) followed by `linear_bf16`. The kernel rounds the rows
to bfloat16 before they are divided by their size, not after.
"""

import torch

from predecode.custom_kernels import linear_bf16
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import GROUP
from predecode.custom_kernels.normalize import rms_normalize
from predecode.custom_kernels.op import Call, LaunchRule, define_op
from predecode.custom_kernels.prologue import Prologue, define_prologue, for_few_rows
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.skinny_tile import float_split_tile
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target

MOST_ROWS = 16
"""Rows up to which every workgroup normalises its slice of them faster than it waits for them, measured on an H200."""
NORMED = {"x": 2}
"""The product's argument that a norm makes, and which of its results it is."""


def reference(x: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, weight: torch.Tensor) -> torch.Tensor:
    return linear_bf16.reference(rms_normalize(x, norm_weight, epsilon).to(x.dtype), weight)


def _fake(x, norm_weight, epsilon, weight):
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


def normed_linear_launch(symbol: str, *terms: str) -> LaunchRule:
    """The launch rule of kernel ``symbol``, whose rows are the sum of its arguments ``terms``."""

    def launch(target: Target, call: Call) -> Launch | None:
        (rows, columns), outputs = call["x"].shape, call["weight"].shape[0]
        if rows > MOST_ROWS or call["x"].dtype != target.element_format.activation_dtype:
            return None
        tile = float_split_tile(target, rows, outputs, columns)
        # A slice of whole groups, all of it in workgroup memory.
        if tile is None or tile.split == 1 or tile.blocks > 1 or columns % (GROUP * tile.split):
            return None
        if tile.ahead * tile.stage * tile.split < columns:
            return None
        return Launch(
            source=f"{symbol}.hip",
            symbol=symbol,
            operands=(*terms, "norm_weight", "weight"),
            constants=(outputs, float_bits(call["epsilon"])),
            workgroups=tile.workgroups(outputs),
            workgroup_size=(THREADS, 1, 1),
            defines=(("ROWS", rows), ("COLUMNS", columns), *tile.defines),
            workgroups_per_unit=RESIDENT_PER_UNIT,
            cluster=tile.split,
            reads_early=("norm_weight", "weight"),
            posts=True,
        )

    return launch


PAYS = for_few_rows("x", MOST_ROWS)
OP = define_op(
    "normed_linear_bf16(Tensor x, Tensor norm_weight, float epsilon, Tensor weight) -> Tensor",
    reference,
    _fake,
    launch=normed_linear_launch("normed_linear_bf16", "x"),
)
"""``rms_norm(x) @ weight.T``: ``x`` bf16 [T, K], ``norm_weight`` bf16 [K], ``weight`` bf16 [N, K] -> float32 [T, N]."""

_NAMES = {"x": "x", "norm_weight": "weight", "epsilon": "epsilon"}
define_prologue(Prologue(OP, "rms_norm_group_quant", "linear_bf16", NORMED, _NAMES, PAYS))
