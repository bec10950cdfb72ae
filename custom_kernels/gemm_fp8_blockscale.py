"""FP8 matrix multiplication with 128-wide activation scales and 128 x 128 weight scales.

Source: aiter `gemm_a8w8_blockscale_bpreshuffle`: tiled weight, group-major activation scales.
"""

import torch

from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import (
    GROUP,
    GROUP_MAJOR_SCALES,
    TILE,
    TILED_16X16,
    require_layout,
)
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_blocks, dequantize_groups
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation

MOST_ROW_TILES = 4
"""Tiles of 16 activation rows that a workgroup multiplies with one read of the weight."""
MOST_WAVES = 8
"""Waves of a workgroup; they share the groups of 128 columns among them."""


def block_scaled_launch_shape(rows: int, columns: int) -> tuple[int, int]:
    """(row tiles, waves) of a workgroup that multiplies up to ``rows`` rows of ``columns`` quantised columns."""
    return min(MOST_ROW_TILES, -(-rows // TILE)), min(MOST_WAVES, columns // GROUP)


def require_block_scales(consumer: str, weight: BlockScaledWeight) -> tuple[int, int]:
    """(N, K) of a tiled block-scaled ``weight`` [..., N/16, K/16, 16, 16]; its scales must fit."""
    require_layout(
        consumer, "weight", weight.layout, TILED_16X16, "pack it with TILED_16X16.pack when it is loaded"
    )
    *batch, bands, tiles, tile_rows, tile_columns = weight.values.shape
    n, k = bands * TILE, tiles * TILE
    scales = [*batch, -(-n // GROUP), k // GROUP]
    if (tile_rows, tile_columns) != (TILE, TILE) or k % GROUP or list(weight.scales.shape) != scales:
        raise ValueError(
            f"{consumer}: weight values {list(weight.values.shape)} with scales {list(weight.scales.shape)}; "
            f"expected [..., N/16, K/16, 16, 16] with K a multiple of {GROUP}, and one scale per "
            f"{GROUP} x {GROUP} block"
        )
    return n, k


def require_quantized_rows(
    consumer: str, x: QuantizedActivation, columns: int, weight: BlockScaledWeight
) -> int:
    """Rows of ``x``, which must be [rows, ``columns``] in the weight's dtype with group-major scales."""
    require_layout(
        consumer, "the activation's scales", x.layout, GROUP_MAJOR_SCALES, "quantise with group-major scales"
    )
    rows = x.values.shape[0]
    if list(x.values.shape) != [rows, columns] or list(x.scales.shape) != [columns // GROUP, rows]:
        raise ValueError(
            f"{consumer}: activation {list(x.values.shape)} with scales {list(x.scales.shape)}; the weight asks "
            f"for [rows, {columns}] with scales [{columns // GROUP}, rows]"
        )
    if x.values.dtype != weight.values.dtype:
        raise TypeError(
            f"{consumer}: activation {x.values.dtype} and weight {weight.values.dtype} differ; quantise both in "
            "the target's element format"
        )
    return rows

CPU_ROWS = 64
"""Activation rows of one CPU workgroup."""


def reference(
    values: torch.Tensor, scales: torch.Tensor, weight: torch.Tensor, weight_scales: torch.Tensor
) -> torch.Tensor:
    x = dequantize_groups(values, GROUP_MAJOR_SCALES.unpack(scales))
    w = dequantize_blocks(TILED_16X16.unpack(weight), weight_scales)
    return (x @ w.T).to(FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _fake(values, scales, weight, weight_scales):
    shape = (values.shape[0], weight.shape[0] * TILE)
    return values.new_empty(shape, dtype=FORMAT_OF_DTYPE[values.dtype].activation_dtype)


def _launch(target: Target, call: Call) -> Launch | None:
    rows, columns = call["values"].shape
    bands = call["weight"].shape[0]
    operands = ("values", "scales", "weight", "weight_scales")
    if not target.has_hip_kernels:
        return Launch(
            source="gemm_fp8_blockscale.cpp",
            symbol="gemm_fp8_blockscale",
            operands=operands,
            constants=(rows, bands * TILE, columns),
            workgroups=(bands, -(-rows // CPU_ROWS), 1),
        )
    row_tiles, waves = block_scaled_launch_shape(rows, columns)
    return Launch(
        source="gemm_fp8_blockscale.hip",
        symbol="gemm_fp8_blockscale",
        operands=operands,
        constants=(rows, bands, columns),
        workgroups=(bands, -(-rows // (TILE * row_tiles)), 1),
        workgroup_size=(waves * target.wave_size, 1, 1),
        defines=(("ROW_TILES", row_tiles), ("WAVES", waves)),
    )


OP = define_op(
    "gemm_fp8_blockscale(Tensor values, Tensor scales, Tensor weight, Tensor weight_scales) -> Tensor",
    reference,
    _fake,
    launch=_launch,
)


def gemm_fp8_blockscale(x: QuantizedActivation, weight: BlockScaledWeight) -> torch.Tensor:
    """``y[t, n] = sum_k x[t, k] * w[n, k]`` of the dequantised operands, accumulated in float32, rounded once.

    ``x`` [T, K] with group-major scales [K/128, T]; ``weight`` tiled [N/16, K/16, 16, 16] with scales
    [ceil(N/128), K/128]. Returns [T, N] in the format's activation dtype.
    """
    _, columns = require_block_scales("gemm_fp8_blockscale", weight)
    require_quantized_rows("gemm_fp8_blockscale", x, columns, weight)
    return torch.ops.predecode.gemm_fp8_blockscale(x.values, x.scales, weight.values, weight.scales)
