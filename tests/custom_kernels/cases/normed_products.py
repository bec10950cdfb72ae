"""Rows that a product normalises itself, for the cases of the ops that do."""

from collections.abc import Iterator

import torch

from predecode.custom_kernels.formats import ElementFormat
from predecode.custom_kernels.normalize import rms_normalize
from tests.custom_kernels.cases.activations import poisoned_row, random_rows, special_rows
from tests.custom_kernels.cases.case import Comparison

# (label, rows, N, K, columns of a row of x)
SIZES = (
    ("one row", 1, 128, 1024, 1024),
    ("last scale block half full", 3, 192, 2048, 2048),
    ("rows among other columns", 5, 48, 1024, 1032),
    ("7 rows", 7, 48, 3072, 3136),
    ("8 rows", 8, 48, 2048, 2048),
    ("9 rows, which wait", 9, 48, 2048, 2048),
    ("4 rows, more columns than are under way", 4, 144, 7168, 7168),
    ("GLM-5.1 qkv_a", 4, 2624, 6144, 6144),
    ("GLM-5.1 indexer wk", 8, 128, 6144, 6144),
    ("GLM-5.1 rank q_b", 4, 2048, 2048, 2624),
    ("GLM-5.1 wq_b", 8, 4096, 2048, 2624),
    ("DeepSeek-V3.2 rank q_b", 1, 3072, 1536, 2112),
)


def normed_rows(
    generator: torch.Generator, element_format: ElementFormat, with_residual: bool
) -> Iterator[tuple[str, torch.Tensor, torch.Tensor, torch.Tensor, int]]:
    """(label, x, residual, norm weight [K], N) of every case: x [T, K or more], residual [T, K], zero without one.

    No element is so close to half way between two codes that the order of a sum decides.
    """
    dtype = element_format.activation_dtype
    for label, rows, n, k, stride in SIZES:
        yield _case(label, generator, random_rows(generator, (rows, stride), element_format), with_residual, k, n)
    special = special_rows(generator, 2048, element_format)
    special["NaN and infinity"] = poisoned_row(generator, 2048, element_format)
    for label, x in special.items():
        yield _case(label, generator, x, with_residual, 2048, 48)
    # The sums' low bits are lost in bfloat16: a norm of the rounded sum is off by many codes' worth.
    one, norm = torch.ones(2, 1024, dtype=dtype), (1 + torch.arange(1024) % 7 / 8).to(dtype)
    if with_residual:
        yield "sums beyond bf16", one, one * 2.0**-9, norm, 128
        yield "sums that cancel", one, -one, norm, 128


def _case(label: str, generator: torch.Generator, x: torch.Tensor, with_residual: bool, k: int, n: int):
    norm = (1 + 0.3 * torch.randn(k, generator=generator)).to(x.dtype)
    residual = torch.randn(len(x), k, generator=generator).to(x.dtype) if with_residual else torch.zeros_like(x[:, :k])
    for attempt in range(8):
        near = _near_ties((x[:, :k].float() + residual.float()) * norm.float())
        for term in (x[:, :k], residual):
            term.copy_(torch.where(near, term * 1.0625 if attempt < 4 else 0, term))
    assert not near.any()
    return label, x, residual, norm, n


def _near_ties(numbers: torch.Tensor) -> torch.Tensor:
    """Which of float32 ``numbers`` [T, K] a small error would give another code, in either FP8 format."""
    groups = numbers.reshape(len(numbers), -1, 128)
    quotients = groups / groups.abs().amax(2, keepdim=True)
    near = torch.zeros_like(groups, dtype=torch.bool)
    for maximum, dtype in ((448, torch.float8_e4m3fn), (240, torch.float8_e4m3fnuz)):
        below, above = ((quotients * (maximum * factor)).to(dtype) for factor in (1 - 2e-6, 1 + 2e-6))
        near |= below.view(torch.uint8) != above.view(torch.uint8)
    # NaN and the largest, which the other factor takes beyond the maximum, are what they are.
    return (near & (quotients.abs() < 0.99)).reshape(numbers.shape)


def float_weight(generator: torch.Generator, n: int, norm: torch.Tensor) -> torch.Tensor:
    """Weight [N, K] of an unquantised product, at most 300 rows of it."""
    return torch.randn(min(n, 300), len(norm), generator=generator).to(norm.dtype)


def rounded_rows(x: torch.Tensor, residual: torch.Tensor, norm: torch.Tensor, weight: torch.Tensor) -> Comparison:
    """Of an unquantised product whose rows may each be rounded to their dtype before or after they are divided.

    Roundings are independent: eight standard deviations of the sum of their errors.
    """
    normed = rms_normalize(x.float() + residual.float(), norm, 1e-5).double().nan_to_num(0, 0, 0)
    unit = 2.0**-7 if x.dtype == torch.bfloat16 else 2.0**-22
    return Comparison(relative=1e-5, absolute=8 * unit / 12**0.5 * (normed**2 @ weight.double().T ** 2).sqrt() + 1e-20)
