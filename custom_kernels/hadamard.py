"""The orthonormal Hadamard rotation of 128 elements, in Sylvester order.

``y[i] = 128 ** -0.5 * sum_j (-1) ** popcount(i & j) * x[j]``. It leaves dot products unchanged and spreads
outliers over all elements before quantisation (SGLang `rotate_activation`).
"""

import torch


def hadamard_signs(size: int) -> torch.Tensor:
    """float32 [size, size] of +1 and -1; ``size`` is a power of two up to 256."""
    index = torch.arange(size, dtype=torch.int32)
    # The compiler knows these functions, not the operators `&` and `^` on tensors.
    bits = torch.bitwise_and(index[:, None], index[None, :])
    for shift in (4, 2, 1):
        bits = torch.bitwise_xor(bits, bits >> shift)
    return (1 - 2 * (bits & 1)).float()


def hadamard_rotate(x: torch.Tensor) -> torch.Tensor:
    """``x`` float32 [..., size] -> the same shape rotated along the last axis, accumulated in float32."""
    size = x.shape[-1]
    return (x.reshape(-1, size) @ hadamard_signs(size)).reshape(x.shape) * size**-0.5
