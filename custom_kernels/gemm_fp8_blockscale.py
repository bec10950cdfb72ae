"""FP8 matrix multiplication with 128-wide activation scales and 128 x 128 weight scales.

Source: aiter `gemm_a8w8_blockscale_bpreshuffle`: tiled weight, group-major activation scales.
"""

import torch

from predecode.custom_kernels.block_scaled import require_quantized_rows
from predecode.custom_kernels.clustered_launch import in_clusters
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP_MAJOR_SCALES, TILE, TILED_16X16
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import dequantize_blocks, dequantize_groups
from predecode.custom_kernels.skinny_tile import THREADS, block_scaled_tile
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation
from predecode.custom_kernels.warpgroup_tile import pair_tile, warpgroup_tile

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
    tile = block_scaled_tile(target, rows, bands, columns)
    launch = Launch(
        source="gemm_fp8_blockscale.hip",
        symbol="gemm_fp8_blockscale",
        operands=operands,
        constants=(bands,),
        workgroups=tile.workgroups(target, rows, bands * TILE),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROWS", rows), ("COLUMNS", columns), *tile.defines),
    )
    split = pair_tile(target, rows, bands, columns) or warpgroup_tile(target, rows, bands, columns)
    if split is None:
        return launch
    return in_clusters(launch, split, "gemm_fp8_blockscale_warpgroups.hip", bands, rows, columns)


OP = define_op(
    "gemm_fp8_blockscale(Tensor values, Tensor scales, Tensor weight, Tensor weight_scales) -> Tensor",
    reference,
    _fake,
    launch=_launch,
)


def gemm_fp8_blockscale(x: QuantizedActivation, weight: BlockScaledWeight) -> torch.Tensor:
    """``y[t, n] = sum_k x[t, k] * w[n, k]`` of the dequantised operands, summed in float32, rounded once.

    ``x`` [T, K] with group-major scales [K/128, T]; ``weight`` tiled [N/16, K/16, 16, 16] with scales
    [ceil(N/128), K/128]. Returns [T, N] in the format's activation dtype.
    """
    require_quantized_rows("gemm_fp8_blockscale", x, None, weight)
    return torch.ops.predecode.gemm_fp8_blockscale(x.values, x.scales, weight.values, weight.scales)
