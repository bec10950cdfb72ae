"""SiLU of the gate times the up projection, quantised in groups of 128 with group-major scales.

Source: aiter `silu_and_mul` followed by its `per_1x128` quantisation: the product is rounded to the
activation dtype in between.
"""

import torch

from predecode.custom_kernels.formats import ELEMENT_FORMATS, ElementFormat
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.layouts import GROUP, GROUP_MAJOR_SCALES
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.quantize import quantize_groups
from predecode.custom_kernels.require import require_groups, require_tensor
from predecode.custom_kernels.row_workgroups import THREADS, chunks_of
from predecode.custom_kernels.silu import silu_mul
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.values import QuantizedActivation


def reference(x: torch.Tensor, element_format: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, scales = quantize_groups(silu_mul(x).float(), ELEMENT_FORMATS[element_format])
    return values, GROUP_MAJOR_SCALES.pack(scales)


def _fake(x, element_format):
    rows, columns = x.shape[0], x.shape[1] // 2
    return (
        x.new_empty((rows, columns), dtype=ELEMENT_FORMATS[element_format].dtype),
        x.new_empty((columns // GROUP, rows), dtype=torch.float32),
    )


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, columns = call["x"].shape[0], call["x"].shape[1] // 2
    if not target.has_hip_kernels:
        defines = (("COLUMNS", columns),)
        return Launch(
            "silu_mul_group_quant.cpp", "silu_mul_group_quant", ("x",), (rows,), (rows, 1, 1), defines=defines
        )
    return Launch(
        source="silu_mul_group_quant.hip",
        symbol="silu_mul_group_quant",
        operands=("x",),
        constants=(rows, columns),
        workgroups=(rows, chunks_of(columns), 1),
        workgroup_size=(THREADS, 1, 1),
    )


OP = define_op(
    "silu_mul_group_quant(Tensor x, str element_format) -> (Tensor, Tensor)",
    reference,
    _fake,
    launch=_launch,
)


def silu_mul_group_quant(x: torch.Tensor, element_format: ElementFormat) -> QuantizedActivation:
    """``silu(gate) * up`` of ``x`` bf16 [R, 2I], the gate in the first I columns; I is a multiple of 128.

    Returns [R, I] quantised with scales float32 [I/128, R]. ``x`` is float32 where the format does not
    quantise.
    """
    require_tensor("silu_mul_group_quant", "x", x, element_format.activation_dtype, ("R", "2I"))
    require_groups("silu_mul_group_quant", "half of x", x.shape[1] // 2)
    values, scales = torch.ops.predecode.silu_mul_group_quant(x, element_format.name)
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
