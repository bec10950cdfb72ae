"""The MLP of the first, dense layers."""

import torch
from torch import nn

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.silu_mul_group_quant import silu_mul_group_quant
from predecode.custom_kernels.values import QuantizedActivation
from predecode.export.model.parameters import Linear


class DenseMlp(nn.Module):
    """``down(silu(gate x) * up x)`` over one rank's ``intermediate`` columns; a partial sum over ranks."""

    def __init__(self, hidden: int, intermediate: int, element_format: ElementFormat):
        super().__init__()
        self.element_format = element_format
        self.gate_up = Linear(2 * intermediate, hidden, element_format)
        self.down = Linear(hidden, intermediate, element_format)

    def forward(self, x: QuantizedActivation, normed: torch.Tensor) -> torch.Tensor:
        """``x`` [T, hidden] -> [T, hidden]; ``normed``, its unquantised twin, is not needed here."""
        return self.down(silu_mul_group_quant(self.gate_up(x), self.element_format))
