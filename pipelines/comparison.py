"""How far a result is from its golden: masks first, then error and cosine per row; caches dequantised."""

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from predecode.pipelines.manifest import TensorSpec, Tolerance
from predecode.pipelines.page_layout import CACHE_PAGES, PAGE_TOKENS, CachePage

FP8_DTYPES = {
    "e4m3fn": np.dtype(ml_dtypes.float8_e4m3fn),
    "e4m3fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
}
_MANTISSA_BITS = 3
# In steps: what a scale that differs in its last bits moves a value by.
_SCALE_SLACK = 0.01
_SMALLEST_EXPONENT = {"e4m3fn": -6, "e4m3fnuz": -7}


@dataclass(frozen=True, slots=True)
class FirstBad:
    """The first element out of tolerance: coordinates by axis name, its byte in the tensor, both values."""

    reason: str
    count: int
    coordinates: dict[str, int]
    byte_offset: int
    given: float | str
    expected: float | str


@dataclass(frozen=True, slots=True)
class Comparison:
    """One result against its golden.

    ``max_rel`` is the largest error over its row's largest expected magnitude (over 1 where that row is
    zero).
    """

    name: str
    max_abs: float
    max_rel: float
    cosine: float
    tolerance: Tolerance
    passed: bool
    first_bad: FirstBad | None = None


@dataclass(frozen=True, slots=True)
class _Values:
    """float64 [rows, columns], and for quantised values the spacing of their format around each."""

    numbers: np.ndarray
    spacing: np.ndarray | None


def compare_result(
    name: str,
    spec: TensorSpec,
    given: np.ndarray,
    expected: np.ndarray,
    tolerance: Tolerance,
    element_format: str,
) -> Comparison:
    """Compare ``given`` with ``expected`` (both of ``spec``'s shape and dtype) as `Tolerance` describes.

    A cache (``spec.layout`` names a page) is compared element by element in logical order, after
    dequantisation from ``element_format``.
    """
    page = CACHE_PAGES.get(spec.layout)
    got, want = (_values(array, page, element_format) for array in (given, expected))
    finite = np.isfinite(want.numbers) & np.isfinite(got.numbers)
    error = np.where(finite, np.abs(_masked(got.numbers, finite) - _masked(want.numbers, finite)), 0.0)
    magnitude = np.where(finite, np.abs(want.numbers), 0.0).max(axis=1, initial=0.0, keepdims=True)
    cosine = _cosine(_masked(got.numbers, finite), _masked(want.numbers, finite))
    bad, reason = _first_failure(got, want, finite, error, magnitude, cosine, tolerance, spec)
    relative = error / np.where(magnitude > 0, magnitude, 1.0)
    return Comparison(
        name=name,
        max_abs=float(error.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        cosine=float(cosine.min(initial=1.0)),
        tolerance=tolerance,
        passed=bad is None,
        first_bad=None if bad is None else _describe(bad, reason, spec, page, got, want, element_format),
    )


def _values(array: np.ndarray, page: CachePage | None, element_format: str) -> _Values:
    if page is None:
        return _Values(array.reshape(array.shape[0], -1).astype(np.float64), None)
    numbers = page.elements(array).view(FP8_DTYPES[element_format]).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = np.frexp(np.where(np.isfinite(numbers), numbers, 0.0))[1] - 1
        spacing = np.exp2(np.maximum(exponent, _SMALLEST_EXPONENT[element_format]) - float(_MANTISSA_BITS))
        spacing = np.where(
            numbers == 0, np.exp2(_SMALLEST_EXPONENT[element_format] - float(_MANTISSA_BITS)), spacing
        )
        scales = page.scales(array)
        if scales is not None:
            numbers = numbers * scales[:, None].astype(np.float64)
            spacing = spacing * np.abs(scales[:, None].astype(np.float64))
    return _Values(numbers, spacing)


def _masked(numbers: np.ndarray, finite: np.ndarray) -> np.ndarray:
    return np.where(finite, numbers, 0.0)


def _cosine(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Per row; one where both rows are zero, zero where only one is."""
    products = (given * expected).sum(axis=1)
    norms = np.linalg.norm(given, axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~given.any(axis=1) & ~expected.any(axis=1)
    return np.where(both_zero, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))


def _first_failure(got, want, finite, error, magnitude, cosine, tolerance, spec):
    """(mask of bad elements, reason) of the first rule that is broken, or (None, "")."""
    for kind, test in (("NaN", np.isnan), ("infinity", np.isinf)):
        mask = test(got.numbers) != test(want.numbers)
        if mask.any():
            return mask, f"{kind} in one of the two only"
    mask = np.isinf(want.numbers) & (got.numbers != want.numbers)
    if mask.any():
        return mask, "infinities of different sign"
    bound = tolerance.absolute + tolerance.relative * magnitude
    if want.spacing is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            steps = error / np.maximum(got.spacing, want.spacing)
        slack = _SCALE_SLACK if tolerance.steps else 0.0
        mask = finite & (steps > tolerance.steps + slack) & (error > bound)
        if mask.any():
            return mask, f"more than {tolerance.steps} steps of the number format apart"
        mask = finite & (steps > slack)
        if mask.mean() > tolerance.fraction:
            return mask, f"{mask.mean():.2%} of the elements differ, {tolerance.fraction:.2%} may"
    elif np.dtype(spec.dtype).kind in "iub":
        if error.any():
            return error > 0, "integers differ"
    else:
        mask = finite & (error > bound)
        if mask.any():
            return mask, f"error above {tolerance.absolute:g} + {tolerance.relative:g} x largest of the row"
    rows = cosine < tolerance.cosine
    if rows.any():
        return rows[:, None] & np.ones_like(finite), f"cosine of the row below {tolerance.cosine}"
    return None, ""


def _describe(
    bad, reason, spec: TensorSpec, page: CachePage | None, got, want, element_format: str
) -> FirstBad:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    if page is None:
        index = (row, *(int(i) for i in np.unravel_index(column, spec.shape[1:] or (1,))))[: len(spec.shape)]
        coordinates = dict(zip(_axis_names(len(index)), index, strict=True))
        offset = (row * math.prod(spec.shape[1:]) + column) * np.dtype(spec.dtype).itemsize
    else:
        coordinates = {"page": row // PAGE_TOKENS, "token": row % PAGE_TOKENS, "dim": column}
        in_page = page.element_offset(row % PAGE_TOKENS, column, page.dims(spec.shape[1]))
        offset = row // PAGE_TOKENS * spec.shape[1] + in_page
    given, expected = got.numbers[row, column], want.numbers[row, column]
    return FirstBad(
        reason, int(bad.sum()), coordinates, int(offset), _json_number(given), _json_number(expected)
    )


def _axis_names(count: int) -> tuple[str, ...]:
    """Row first; the last axis is a dim, one between them is a head."""
    return {1: ("row",), 2: ("row", "dim"), 3: ("row", "head", "dim")}.get(
        count, ("row", *(f"axis {i}" for i in range(1, count)))
    )


def _json_number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(value)
