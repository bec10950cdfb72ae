"""Rows of activations that the cases of the normalising and quantising ops share."""

import torch

from predecode.custom_kernels.formats import ElementFormat
from tests.custom_kernels.cases.case import Comparison


def random_rows(generator: torch.Generator, shape: tuple[int, ...], element_format: ElementFormat) -> torch.Tensor:
    """Normal values in the activation dtype, columns of very different size so that groups' scales differ."""
    sizes = torch.exp2(torch.randint(-6, 7, shape[-1:], generator=generator).float())
    return (torch.randn(shape, generator=generator) * sizes).to(element_format.activation_dtype)


def special_rows(generator: torch.Generator, columns: int, element_format: ElementFormat) -> dict[str, torch.Tensor]:
    """Rows [1, columns] that are zero, tiny, huge, and with one outlier."""
    normal = torch.randn(1, columns, generator=generator)
    outlier = normal.clone()
    outlier[0, columns // 2] = 3e4
    some_zero = torch.where(torch.arange(columns) < columns // 2, torch.zeros(1), normal)
    rows = {
        "zeros": torch.zeros(1, columns),
        "a zero half": some_zero,
        "tiny": normal * 1e-30,
        "denormal": normal * 1e-39,
        "huge": normal * 1e15,
        "an outlier": outlier,
    }
    return {label: row.to(element_format.activation_dtype) for label, row in rows.items()}


def halves_between_codes(columns: int, element_format: ElementFormat) -> torch.Tensor:
    """A row [1, columns] whose groups have scale one, and values half way between two FP8 codes."""
    row = 1 + torch.arange(columns)[None] % 16 / 16
    row[0, ::128] = -element_format.maximum if element_format.is_quantized else -448.0
    return row.to(element_format.activation_dtype)


def poisoned_row(generator: torch.Generator, columns: int, element_format: ElementFormat) -> torch.Tensor:
    """Two rows [2, columns]; the first holds one NaN and, in another group, one infinity."""
    rows = torch.randn(2, columns, generator=generator)
    rows[0, 5] = float("nan")
    rows[0, columns - 3] = float("inf")
    return rows.to(element_format.activation_dtype)


def quantized(element_format: ElementFormat, exact: bool, expected: torch.Tensor | None = None):
    """Comparisons of (values, scales) where only the order of a float32 sum may differ, or nothing (`exact`).

    NaN has several codes: where ``expected`` values are NaN, only the scales are compared.
    """
    region = None if expected is None else ~expected.float().isnan()
    if not element_format.is_quantized:
        return Comparison(relative=1e-6, region=region), Comparison()
    if exact:
        return Comparison(exact=True, region=region), Comparison(relative=1e-7)
    return Comparison(steps=1, fraction=5e-3, region=region), Comparison(relative=2e-6)


def rounded(element_format: ElementFormat) -> Comparison:
    """Of an activation that may round the other way."""
    return Comparison(relative=2.0**-7 if element_format.is_quantized else 2e-6)
