"""RMSNorm of the sum of few rows and their residual, quantisation, and an FP8 product.

Source: aiter `fused_rms_fp8_group_quant` with ``res1``, followed by `gemm_a8w8_blockscale_bpreshuffle`.
"""

import torch

from predecode.custom_kernels import add_rms_norm_group_quant, gemm_fp8_blockscale
from predecode.custom_kernels.formats import FORMAT_OF_DTYPE
from predecode.custom_kernels.layouts import TILE
from predecode.custom_kernels.normed_gemm_fp8_blockscale import PAYS, QUANTIZED, normed_launch
from predecode.custom_kernels.op import define_op
from predecode.custom_kernels.prologue import Prologue, define_prologue


def reference(
    x: torch.Tensor,
    residual: torch.Tensor,
    norm_weight: torch.Tensor,
    epsilon: float,
    weight: torch.Tensor,
    weight_scales: torch.Tensor,
) -> torch.Tensor:
    element_format = FORMAT_OF_DTYPE[weight.dtype].name
    values, scales, _, _ = add_rms_norm_group_quant.reference(x, residual, norm_weight, epsilon, element_format)
    return gemm_fp8_blockscale.reference(values, scales, weight, weight_scales)


def _fake(x, residual, norm_weight, epsilon, weight, weight_scales):
    return x.new_empty((x.shape[0], weight.shape[0] * TILE))


OP = define_op(
    "add_normed_gemm_fp8_blockscale(Tensor x, Tensor residual, Tensor norm_weight, float epsilon, Tensor weight, "
    "Tensor weight_scales) -> Tensor",
    reference,
    _fake,
    launch=normed_launch("add_normed_gemm_fp8_blockscale", "x", "residual"),
    reads_reduced=True,
)
"""``rms_norm(x + residual) @ w.T`` with the norm of the float32 sum, quantised in groups of 128.

``x`` and ``residual`` bf16 [T, K], ``norm_weight`` bf16 [K], ``weight`` and ``weight_scales`` as of
`gemm_fp8_blockscale`. Returns bf16 [T, N].
"""

_NAMES = {"x": "x", "residual": "residual", "norm_weight": "weight", "epsilon": "epsilon"}
define_prologue(Prologue(OP, "add_rms_norm_group_quant", "gemm_fp8_blockscale", QUANTIZED, _NAMES, PAYS))
