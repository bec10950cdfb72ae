"""The final norm, before the output head."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.export.model.parameters import Weight


class FinalNorm(Weight):
    """RMSNorm of the residual stream; the sum is not rounded before it is normalised."""

    def __init__(self, dim: int, epsilon: float, element_format: ElementFormat):
        super().__init__(dim, element_format=element_format)
        self.epsilon = epsilon

    def forward(self, hidden: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """[T, dim] twice -> [T, dim], all in the activation dtype."""
        stream = hidden.float() + residual.float()
        scale = torch.rsqrt((stream * stream).mean(-1, keepdim=True) + self.epsilon)
        return (stream * scale * self.weight.float()).to(hidden.dtype)
