"""RMS normalisation in plain torch: the arithmetic shared by the references of the normalising ops."""

import torch


def rms_normalize(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """float32 [..., N] from ``x`` [..., N] and ``weight`` [N]: ``x * rsqrt(mean(x^2) + epsilon) * weight``.

    Everything in float32, multiplied in this order (aiter `fused_rms_fp8_group_quant`).
    """
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * weight.float()
