"""FP8 encoding and group quantisation, written from their definitions for the brute-force references."""

import numpy as np
import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.reference_formats import decode


def encode(numbers: np.ndarray, element_format: ElementFormat) -> torch.Tensor:
    """Nearest value of the format, ties to the even code, magnitudes above the maximum to the maximum."""
    if not element_format.is_quantized:
        return torch.from_numpy(numbers.astype(np.float32))
    codes = torch.arange(128, dtype=torch.uint8)
    values = decode(codes.view(element_format.dtype))
    values = values[values <= element_format.maximum]  # drops NaN: ascending from zero
    magnitudes = np.minimum(np.abs(numbers.astype(np.float64)), element_format.maximum)
    above = np.clip(np.searchsorted(values, magnitudes), 1, len(values) - 1)
    down, up = magnitudes - values[above - 1], values[above] - magnitudes
    nearest = np.where((up < down) | ((up == down) & (above % 2 == 0)), above, above - 1)
    negative = np.signbit(numbers)
    if "fnuz" in element_format.name:
        negative &= nearest > 0  # there is no negative zero: its code is NaN
    not_a_number = 0x80 if "fnuz" in element_format.name else 0x7F
    stored = np.where(np.isnan(numbers), not_a_number, nearest + 128 * negative)
    return torch.from_numpy(stored.astype(np.uint8)).view(element_format.dtype)


def quantize_row(row: np.ndarray, element_format: ElementFormat) -> tuple[torch.Tensor, list[np.float32]]:
    """Codes [columns] and one scale per 128 columns of a float32 ``row``, all arithmetic in float32."""
    assert row.dtype == np.float32
    numbers, scales = np.empty_like(row), []
    for start in range(0, len(row), 128):
        group = row[start : start + 128]
        scale = np.float32(1)
        if element_format.is_quantized:
            scale = np.maximum(np.abs(group).max(), np.float32(1e-10)) / np.float32(element_format.maximum)
        with np.errstate(invalid="ignore"):
            numbers[start : start + 128] = group * (np.float32(1) / scale)
        scales.append(scale)
    return encode(numbers, element_format), scales


def quantize_rows(rows: np.ndarray, element_format: ElementFormat) -> tuple[torch.Tensor, torch.Tensor]:
    """`quantize_row` of each row: codes [rows, columns], scales float32 [groups, rows] (group-major)."""
    pairs = [quantize_row(row, element_format) for row in rows]
    codes = torch.stack([row.view(torch.uint8) for row, _ in pairs])
    scales = np.array([scales for _, scales in pairs], dtype=np.float32)
    return codes.view(element_format.dtype), torch.from_numpy(scales.T.copy())


def normalize_row(row: np.ndarray, weight: torch.Tensor, epsilon: float) -> np.ndarray:
    """RMSNorm of a float32 row in float64, rounded to float32 at the end."""
    numbers = row.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (numbers / np.sqrt((numbers**2).mean() + epsilon) * weight.double().numpy()).astype(np.float32)
