"""RMSNorm of the sum of few rows and their residual, and an unquantised product.

Source: aiter `fused_rms_fp8_group_quant` with ``res1`` (its unquantised twin) followed by `linear_bf16`.
"""

import torch

from predecode.custom_kernels import linear_bf16
from predecode.custom_kernels.normalize import rms_normalize
from predecode.custom_kernels.normed_linear_bf16 import NORMED, PAYS, normed_linear_launch
from predecode.custom_kernels.op import define_op
from predecode.custom_kernels.prologue import Prologue, define_prologue


def reference(
    x: torch.Tensor, residual: torch.Tensor, norm_weight: torch.Tensor, epsilon: float, weight: torch.Tensor
) -> torch.Tensor:
    normed = rms_normalize(x.float() + residual.float(), norm_weight, epsilon)
    return linear_bf16.reference(normed.to(x.dtype), weight)


def _fake(x, residual, norm_weight, epsilon, weight):
    return x.new_empty((x.shape[0], weight.shape[0]), dtype=torch.float32)


OP = define_op(
    "add_normed_linear_bf16(Tensor x, Tensor residual, Tensor norm_weight, float epsilon, Tensor weight) -> Tensor",
    reference,
    _fake,
    launch=normed_linear_launch("add_normed_linear_bf16", "x", "residual"),
    reads_reduced=True,
)
"""``rms_norm(x + residual) @ weight.T`` with the norm of the float32 sum, float32 [T, N].

``x`` and ``residual`` bf16 [T, K], the others as of `normed_linear_bf16`.
"""

_NAMES = {"x": "x", "residual": "residual", "norm_weight": "weight", "epsilon": "epsilon"}
PROLOGUE = Prologue(OP, "add_rms_norm_group_quant", "linear_bf16", NORMED, _NAMES, PAYS)
define_prologue(PROLOGUE)
