"""Weights as modules. Created empty (also on the meta device); the weights writer fills them by name."""

import torch
from torch import nn

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.gemm_fp8_blockscale import gemm_fp8_blockscale
from predecode.custom_kernels.layouts import GROUP, ROW_MAJOR, TILE, TILED_16X16, RowMajor, Tiled16x16
from predecode.custom_kernels.linear_bf16 import linear_bf16
from predecode.custom_kernels.values import BlockScaledWeight, QuantizedActivation


def empty_parameter(*shape: int, dtype: torch.dtype) -> nn.Parameter:
    """An uninitialised parameter without gradient, on the current default device."""
    return nn.Parameter(torch.empty(shape, dtype=dtype), requires_grad=False)


class BlockScaled(nn.Module):
    """``values`` in an element format, stored as ``layout`` says, and a float32 scale per 128 x 128 block."""

    def __init__(
        self,
        values_shape: tuple[int, ...],
        scales_shape: tuple[int, ...],
        layout: RowMajor | Tiled16x16,
        element_format: ElementFormat,
    ):
        super().__init__()
        self.layout = layout
        self.values = empty_parameter(*values_shape, dtype=element_format.dtype)
        self.scales = empty_parameter(*scales_shape, dtype=torch.float32)

    @property
    def weight(self) -> BlockScaledWeight:
        """The weight as ops take it."""
        return BlockScaledWeight(self.values, self.scales, self.layout)


class Linear(BlockScaled):
    """y = W x with W [rows, columns] tiled 16 x 16."""

    def __init__(self, rows: int, columns: int, element_format: ElementFormat):
        super().__init__(_tiles(rows, columns), _blocks(rows, columns), TILED_16X16, element_format)

    def forward(self, x: QuantizedActivation) -> torch.Tensor:
        return gemm_fp8_blockscale(x, self.weight)


class ExpertWeights(BlockScaled):
    """One tiled [rows, columns] weight per expert."""

    def __init__(self, experts: int, rows: int, columns: int, element_format: ElementFormat):
        super().__init__(
            (experts, *_tiles(rows, columns)), (experts, *_blocks(rows, columns)), TILED_16X16, element_format
        )


class HeadWeights(BlockScaled):
    """One row-major [rows, columns] weight per head; scale blocks run over the rows of all heads."""

    def __init__(self, heads: int, rows: int, columns: int, element_format: ElementFormat):
        super().__init__((heads, rows, columns), _blocks(heads * rows, columns), ROW_MAJOR, element_format)


class Weight(nn.Module):
    """One unquantised tensor, of the activation dtype."""

    def __init__(self, *shape: int, element_format: ElementFormat):
        super().__init__()
        self.weight = empty_parameter(*shape, dtype=element_format.activation_dtype)


class FloatLinear(Weight):
    """y = W x with W [rows, columns] and x in the activation dtype, y accumulated and kept in float32."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear_bf16(x, self.weight)


def _tiles(rows: int, columns: int) -> tuple[int, int, int, int]:
    return rows // TILE, columns // TILE, TILE, TILE


def _blocks(rows: int, columns: int) -> tuple[int, int]:
    return -(-rows // GROUP), -(-columns // GROUP)
