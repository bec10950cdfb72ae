"""Flatten the heads of an attention output and quantise it in groups of 128, scales group-major.

Source: aiter `fused_flatten_fp8_group_quant` with ``transpose_scale``.
"""

import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_groups, require_tensor
from predecode.custom_kernels.row_workgroups import THREADS, chunks_of
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import QuantizedActivation


def reference(x: torch.Tensor, element_format: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, scales = quantize_groups(x.float().flatten(1), ELEMENT_FORMATS[element_format])
    return values, GROUP_MAJOR_SCALES.pack(scales)


def _fake(x, element_format):
    rows, heads, dim = x.shape
    dtype = ELEMENT_FORMATS[element_format].dtype
    return x.new_empty((rows, heads * dim), dtype=dtype), x.new_empty(
        (heads * dim // GROUP, rows), dtype=torch.float32
    )


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, columns = call["x"].shape[0], call["x"][0].numel()
    if not target.has_hip_kernels:
        defines = (("COLUMNS", columns),)
        return Launch(
            "flatten_group_quant.cpp", "flatten_group_quant", ("x",), (rows,), (rows, 1, 1), defines=defines
        )
    return Launch(
        source="flatten_group_quant.hip",
        symbol="flatten_group_quant",
        operands=("x",),
        constants=(rows, columns),
        workgroups=(rows, chunks_of(columns), 1),
        workgroup_size=(THREADS, 1, 1),
    )


OP = define_op(
    "flatten_group_quant(Tensor x, str element_format) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
)


def flatten_group_quant(x: torch.Tensor, element_format: ElementFormat) -> QuantizedActivation:
    """``x`` bf16 [T, H, N] with N a multiple of 128 -> [T, H*N] quantised, scales float32 [H*N/128, T].

    ``x`` is float32 where the format does not quantise.
    """
    require_tensor("flatten_group_quant", "x", x, element_format.activation_dtype, ("T", "H", "N"))
    require_groups("flatten_group_quant", "a head of x", x.shape[2])
    values, scales = torch.ops.predecode.flatten_group_quant(x, element_format.name)
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
