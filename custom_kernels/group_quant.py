"""Quantisation of rows in groups of 128 with group-major scales.

Source: aiter's `per_1x128` quantisation, where no op that makes the rows quantises them too.
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

MOST_TURNS = 4
"""Times that a workgroup's threads take eight elements each, all of which they hold at once."""


def reference(x: torch.Tensor, element_format: str) -> tuple[torch.Tensor, torch.Tensor]:
    values, scales = quantize_groups(x.float(), ELEMENT_FORMATS[element_format])
    return values, GROUP_MAJOR_SCALES.pack(scales)


def _fake(x, element_format):
    rows, columns = x.shape
    return (
        x.new_empty((rows, columns), dtype=ELEMENT_FORMATS[element_format].dtype),
        x.new_empty((columns // GROUP, rows), dtype=torch.float32),
    )


def _launch(target: Target, call: Call) -> Launch | None:
    if call["element_format"] != target.element_format.name:
        return None
    rows, columns = call["x"].shape
    if not target.has_hip_kernels:
        return Launch("group_quant.cpp", "group_quant", ("x",), (rows,), (rows, 1, 1), defines=(("COLUMNS", columns),))
    chunks = chunks_of(rows * columns)
    workgroups = chunks
    if target.starts_in_order:  # a product may start with it, whose workgroups fill the device
        workgroups = min(chunks, max(target.compute_units // 16, -(-chunks // MOST_TURNS)))
    return Launch(
        source="group_quant.hip",
        symbol="group_quant",
        operands=("x",),
        constants=(),
        workgroups=(workgroups, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("ROWS", rows), ("COLUMNS", columns), ("WORKGROUPS", workgroups)),
    )


OP = define_op("group_quant(Tensor x, str element_format) -> (Tensor, Tensor)", reference, _fake, launch=_launch)


def group_quant(x: torch.Tensor, element_format: ElementFormat) -> QuantizedActivation:
    """``x`` bf16 [R, K], K a multiple of 128, quantised with scales float32 [K/128, R].

    ``x`` is float32 where the format does not quantise.
    """
    require_tensor("group_quant", "x", x, element_format.activation_dtype, ("R", "K"))
    require_groups("group_quant", "x", x.shape[1])
    values, scales = torch.ops.predecode.group_quant(x, element_format.name)
    return QuantizedActivation(values, scales, GROUP_MAJOR_SCALES)
