"""RMSNorm, quantised in groups of 128 with group-major scales, and once more unquantised.

Source: aiter `fused_rms_fp8_group_quant` with ``output_unquantized_inp1`` and ``transpose_scale``. The
float32 norm is quantised, not its rounded twin.
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
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, element_format: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    normed = rms_normalize(x, weight, epsilon)
    values, scales = quantize_groups(normed, ELEMENT_FORMATS[element_format])
    return values, GROUP_MAJOR_SCALES.pack(scales), normed.to(x.dtype)


def _fake(x, weight, epsilon, element_format):
    rows, columns = x.shape
    return (
        x.new_empty((rows, columns), dtype=ELEMENT_FORMATS[element_format].dtype),
        x.new_empty((columns // GROUP, rows), dtype=torch.float32),
        torch.empty_like(x),
    )


OP = define_op(
    "rms_norm_group_quant(Tensor x, Tensor weight, float epsilon, str element_format) -> (Tensor, Tensor, Tensor)",
    reference,
    _fake,
    launch=norm_launch("rms_norm_group_quant", "x", "weight"),
)


def rms_norm_group_quant(
    x: torch.Tensor, weight: torch.Tensor, epsilon: float, element_format: ElementFormat
) -> tuple[QuantizedActivation, torch.Tensor]:
    """Norm of ``x`` bf16 [T, N] (N a multiple of 128) with ``weight`` bf16 [N].

    Returns it quantised (scales float32 [N/128, T]) and as bf16 [T, N]; float32 instead of bf16 where the
    format does not quantise.
    """
    require_rows_in_groups("rms_norm_group_quant", "x", x, element_format)
    require_tensor("rms_norm_group_quant", "weight", weight, x.dtype, (x.shape[1],))
    values, scales, normed = torch.ops.predecode.rms_norm_group_quant(x, weight, epsilon, element_format.name)
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES), normed
