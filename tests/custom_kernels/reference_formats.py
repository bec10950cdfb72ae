"""FP8 decoding and the tile order, written from their definitions for the brute-force references."""

import numpy as np
import torch

_FORMATS = {torch.float8_e4m3fn: (7, (0x7F, 0xFF)), torch.float8_e4m3fnuz: (8, (0x80,))}


def decode(tensor: torch.Tensor) -> np.ndarray:
    """float64 values of an FP8 tensor (1 sign, 4 exponent, 3 mantissa bits); other dtypes as they are."""
    if tensor.dtype not in _FORMATS:
        return tensor.double().numpy()
    bias, nan_codes = _FORMATS[tensor.dtype]
    table = np.empty(256)
    for code in range(256):
        exponent, mantissa = code >> 3 & 15, code & 7
        significand = mantissa + 8 if exponent else mantissa
        magnitude = significand * 2.0 ** (max(exponent, 1) - bias - 3)
        table[code] = np.nan if code in nan_codes else (-magnitude if code & 0x80 else magnitude)
    return table[tensor.contiguous().view(torch.uint8).numpy()]


def untile(stored: np.ndarray) -> np.ndarray:
    """[N, K] from [N/16, K/16, 16, 16]: element (n, k) lies at n//16*16*K + k//16*256 + n%16*16 + k%16."""
    rows, columns = stored.shape[0] * 16, stored.shape[1] * 16
    n, k = np.arange(rows)[:, None], np.arange(columns)[None]
    return stored.reshape(-1)[n // 16 * 16 * columns + k // 16 * 256 + n % 16 * 16 + k % 16]


def block_scaled_product(values, scales, weight, weight_scales) -> np.ndarray:
    """float64 [rows, N]: per 128 columns, the product of the codes times both scales."""
    x, w = decode(values), untile(decode(weight))
    scales, weight_scales = scales.double().numpy(), weight_scales.double().numpy()
    total = np.zeros((len(x), len(w)))
    for group in range(x.shape[1] // 128):
        columns = slice(128 * group, 128 * group + 128)
        row_scales = np.array([weight_scales[n // 128, group] for n in range(len(w))])
        total += (x[:, columns] @ w[:, columns].T) * scales[group][:, None] * row_scales
    return total
