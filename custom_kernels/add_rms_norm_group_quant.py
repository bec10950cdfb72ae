"""Residual addition, RMSNorm, and group quantisation with group-major scales.

Source: aiter `fused_rms_fp8_group_quant` with ``res1``, ``output_unquantized_inp1`` and ``transpose_scale``.
The norm is taken of the float32 sum, not of the rounded residual that goes on.
"""

import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES
from predecode.custom_kernels.normalize import rms_normalize
from predecode.custom_kernels.op import define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_rows_in_groups, require_tensor
from predecode.custom_kernels.row_workgroups import norm_launch
from predecode.custom_kernels.values import QuantizedActivation


def reference(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, epsilon: float, element_format: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    total = x.float() + residual.float()
    normed = rms_normalize(total, weight, epsilon)
    values, scales = quantize_groups(normed, ELEMENT_FORMATS[element_format])
    return values, GROUP_MAJOR_SCALES.pack(scales), normed.to(x.dtype), total.to(x.dtype)


def _fake(x, residual, weight, epsilon, element_format):
    rows, columns = x.shape
    return (
        x.new_empty((rows, columns), dtype=ELEMENT_FORMATS[element_format].dtype),
        x.new_empty((columns // GROUP, rows), dtype=torch.float32),
        torch.empty_like(x),
        torch.empty_like(x),
    )


OP = define_op(
    "add_rms_norm_group_quant(Tensor x, Tensor residual, Tensor weight, float epsilon, "
    "str element_format) -> (Tensor, Tensor, Tensor, Tensor)",
    reference,
    _fake,
    launch=norm_launch("add_rms_norm_group_quant", "x", "residual", "weight"),
    reads_reduced=True,
)


def add_rms_norm_group_quant(
    x: torch.Tensor,
    residual: torch.Tensor,
    weight: torch.Tensor,
    epsilon: float,
    element_format: ElementFormat,
) -> tuple[QuantizedActivation, torch.Tensor, torch.Tensor]:
    """Norm of ``x + residual``, both bf16 [T, N] (N a multiple of 128), with ``weight`` bf16 [N].

    Returns it quantised (scales float32 [N/128, T]), as bf16 [T, N], and the sum as bf16 [T, N]; float32
    instead of bf16 where the format does not quantise.
    """
    require_rows_in_groups("add_rms_norm_group_quant", "x", x, element_format)
    require_tensor("add_rms_norm_group_quant", "residual", residual, x.dtype, tuple(x.shape))
    require_tensor("add_rms_norm_group_quant", "weight", weight, x.dtype, (x.shape[1],))
    values, scales, normed, total = torch.ops.predecode.add_rms_norm_group_quant(
        x, residual, weight, epsilon, element_format.name
    )
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES), normed, total
