"""RMSNorm of few rows, their quantisation, and an FP8 product, without waiting for whoever else normalises them.

Source: aiter `fused_rms_fp8_group_quant` followed by `gemm_a8w8_blockscale_bpreshuffle`.
"""

import torch

from predecode.custom_kernels import gemm_fp8_blockscale, rms_norm_group_quant
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch, float_bits
from predecode.custom_kernels.layouts import GROUP, TILE
from predecode.custom_kernels.op import Call, LaunchRule, define_op
from predecode.custom_kernels.prologue import Prologue, define_prologue, for_few_rows
from predecode.custom_kernels.row_workgroups import THREADS
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target
from predecode.custom_kernels.warpgroup_tile import pair_tile, warpgroup_tile

MOST_ROWS = 8
"""Rows up to which every workgroup normalises its slice of them faster than it waits for them, measured on an H200."""


def reference(
    x: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, weight: torch.Tensor, weight_scales: torch.Tensor
) -> torch.Tensor:
    rows = x[:, : norm_weight.shape[0]]
    element_format = FORMAT_OF_DTYPE[weight.dtype].name
    values, scales, _ = rms_norm_group_quant.reference(rows, norm_weight, epsilon, element_format)
    return gemm_fp8_blockscale.reference(values, scales, weight, weight_scales)


def _fake(x, norm_weight, epsilon, weight, weight_scales):
    return x.new_empty((x.shape[0], weight.shape[0] * TILE))


def normed_launch(symbol: str, *terms: str) -> LaunchRule:
    """The launch rule of kernel ``symbol``, whose rows are the sum of its arguments ``terms``."""

    def launch(target: Target, call: Call) -> Launch | None:
        rows, stride = call["x"].shape
        bands, columns = call["weight"].shape[0], call["norm_weight"].shape[0]
        if rows > MOST_ROWS or call["weight"].dtype != target.element_format.dtype:
            return None
        tile = pair_tile(target, rows, bands, columns) or warpgroup_tile(target, rows, bands, columns)
        if tile is None or tile.split == 1:
            return None
        # Sums of squares, of the slice's groups and of all slices.
        squares = 4 * rows * (columns // GROUP // tile.split + tile.split) + 8
        tile = tile.with_most_ahead(target, columns, squares)
        if tile is None:
            return None
        return Launch(
            source=f"{symbol}.hip",
            symbol=symbol,
            operands=(*terms, "norm_weight", "weight", "weight_scales"),
            constants=(bands, float_bits(call["epsilon"])),
            workgroups=tile.workgroups(bands),
            workgroup_size=(THREADS, 1, 1),
            defines=(("ROWS", rows), ("COLUMNS", columns), ("STRIDE", stride), *tile.defines),
            workgroups_per_unit=RESIDENT_PER_UNIT,
            cluster=tile.split,
            reads_early=("norm_weight", "weight", "weight_scales"),
        )

    return launch


def _touched(call: Call) -> dict[str, int]:
    rows, columns = call["x"].shape[0], call["norm_weight"].shape[0]
    return {"x": rows * columns * call["x"].element_size()}


OP = define_op(
    "normed_gemm_fp8_blockscale(Tensor x, Tensor norm_weight, float epsilon, Tensor weight, Tensor weight_scales) "
    "-> Tensor",
    reference,
    _fake,
    launch=normed_launch("normed_gemm_fp8_blockscale", "x"),
    touched=_touched,
)
"""``rms_norm(x[:, :K]) @ w.T`` with the norm quantised in groups of 128.

``x`` bf16 [T, K or more], ``norm_weight`` bf16 [K], ``weight`` and ``weight_scales`` as of `gemm_fp8_blockscale`.
Returns bf16 [T, N].
"""


PAYS = for_few_rows("x", MOST_ROWS)
QUANTIZED = {"values": 0, "scales": 1}
"""The product's arguments that a norm makes, and which of its results they are."""
_NORM = {"x": "x", "norm_weight": "weight", "epsilon": "epsilon"}
_LATENT = {"x": "qkv_a", "norm_weight": "query_weight", "epsilon": "query_epsilon"}
for _producer, _names in (("rms_norm_group_quant", _NORM), ("latent_norms_and_cache", _LATENT)):
    define_prologue(Prologue(OP, _producer, "gemm_fp8_blockscale", QUANTIZED, _names, PAYS))
