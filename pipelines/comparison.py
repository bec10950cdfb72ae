"""How far a result is from its golden: masks first, then error and cosine per row.

Of a cache, the rows that a step writes are compared dequantised; all other bytes must stay as they were.
"""

import math
from dataclasses import dataclass

import ml_dtypes
import numpy as np

from predecode.pipelines.golden_caches import TokenRows, rows_at
from predecode.pipelines.manifest import TensorSpec, Tolerance
from predecode.pipelines.page_layout import CACHE_PAGES, PAGE_TOKENS

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
    name: str, spec: TensorSpec, given: np.ndarray, expected: np.ndarray, tolerance: Tolerance
) -> Comparison:
    """Compare ``given`` with ``expected`` (both of ``spec``'s shape and dtype) as `Tolerance` describes."""
    got, want = (_Values(array.reshape(array.shape[0], -1).astype(np.float64), None) for array in (given, expected))
    figures = _Figures.of(got, want)
    bad, reason = _first_failure(figures, tolerance, spec.dtype)
    return figures.comparison(name, tolerance, None if bad is None else _in_tensor(figures, bad, reason, spec))


def compare_cache(
    name: str,
    spec: TensorSpec,
    before: np.ndarray,
    after: np.ndarray,
    slots: np.ndarray,
    expected: TokenRows,
    tolerance: Tolerance,
    element_format: str,
) -> Comparison:
    """Compare a cache of ``spec`` ``after`` a step that writes the rows ``expected`` to ``slots`` int64 [n].

    ``before`` and ``after`` are int8 [pages, page bytes]. Only the pages that differ are looked into.
    """
    stray = _stray_slots(before, after, slots, spec.layout)
    compared = np.concatenate([slots, stray])
    given = rows_at(after, compared, spec.layout)
    wanted = expected.followed_by(rows_at(before, stray, spec.layout))
    figures = _Figures.of(*(_dequantised(rows, element_format) for rows in (given, wanted)))
    bad, reason = _first_failure(figures, tolerance, spec.dtype)
    if len(stray):
        bad, reason = _different_bytes(given, wanted), "changed, though no row writes there"
        bad[: len(slots)] = False
    where = None if bad is None else _in_cache(figures, bad, reason, spec, compared)
    return figures.comparison(name, tolerance, where)


def _stray_slots(before: np.ndarray, after: np.ndarray, slots: np.ndarray, layout: str) -> np.ndarray:
    """Slots whose bytes changed and that are not among ``slots``."""
    words = (np.ascontiguousarray(pages).view(np.int64) for pages in (before, after))
    changed = np.flatnonzero(np.not_equal(*words).any(1))
    candidates = (changed[:, None] * PAGE_TOKENS + np.arange(PAGE_TOKENS)).ravel()
    candidates = candidates[~np.isin(candidates, slots)]
    different = _different_bytes(*(rows_at(pages, candidates, layout) for pages in (before, after)))
    return candidates[different.any(1)]


def _different_bytes(one: TokenRows, other: TokenRows) -> np.ndarray:
    """bool [n, dims]: the element's byte or its row's scale differs."""
    different = one.elements != other.elements
    if one.scales is not None:
        different |= (one.scales.view(np.int32) != other.scales.view(np.int32))[:, None]
    return different


def _dequantised(rows: TokenRows, element_format: str) -> _Values:
    numbers = rows.elements.view(FP8_DTYPES[element_format]).astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        exponent = np.frexp(np.where(np.isfinite(numbers), numbers, 0.0))[1] - 1
        spacing = np.exp2(np.maximum(exponent, _SMALLEST_EXPONENT[element_format]) - float(_MANTISSA_BITS))
        spacing = np.where(numbers == 0, np.exp2(_SMALLEST_EXPONENT[element_format] - float(_MANTISSA_BITS)), spacing)
        if rows.scales is not None:
            numbers = numbers * rows.scales[:, None].astype(np.float64)
            spacing = spacing * np.abs(rows.scales[:, None].astype(np.float64))
    return _Values(numbers, spacing)


@dataclass(frozen=True, slots=True)
class _Figures:
    """Both sides, and what is computed from them: elementwise, by row, or [rows, 1] for ``magnitude``."""

    got: _Values
    want: _Values
    finite: np.ndarray
    error: np.ndarray
    magnitude: np.ndarray
    cosine: np.ndarray

    @classmethod
    def of(cls, got: _Values, want: _Values) -> "_Figures":
        finite = np.isfinite(want.numbers) & np.isfinite(got.numbers)
        given, expected = _masked(got.numbers, finite), _masked(want.numbers, finite)
        magnitude = np.abs(expected).max(axis=1, initial=0.0, keepdims=True)
        return cls(got, want, finite, np.abs(given - expected), magnitude, _cosine(given, expected))

    def comparison(self, name: str, tolerance: Tolerance, first_bad: FirstBad | None) -> Comparison:
        relative = self.error / np.where(self.magnitude > 0, self.magnitude, 1.0)
        return Comparison(
            name=name,
            max_abs=float(self.error.max(initial=0.0)),
            max_rel=float(relative.max(initial=0.0)),
            cosine=float(self.cosine.min(initial=1.0)),
            tolerance=tolerance,
            passed=first_bad is None,
            first_bad=first_bad,
        )


def _masked(numbers: np.ndarray, finite: np.ndarray) -> np.ndarray:
    return np.where(finite, numbers, 0.0)


def _cosine(given: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Per row; one where both rows are zero, zero where only one is."""
    products = (given * expected).sum(axis=1)
    norms = np.linalg.norm(given, axis=1) * np.linalg.norm(expected, axis=1)
    both_zero = ~given.any(axis=1) & ~expected.any(axis=1)
    return np.where(both_zero, 1.0, np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0))


def _first_failure(figures: _Figures, tolerance: Tolerance, dtype: str) -> tuple[np.ndarray | None, str]:
    """(mask of bad elements, reason) of the first rule that is broken, or (None, "")."""
    got, want, finite, error = figures.got, figures.want, figures.finite, figures.error
    for kind, test in (("NaN", np.isnan), ("infinity", np.isinf)):
        mask = test(got.numbers) != test(want.numbers)
        if mask.any():
            return mask, f"{kind} in one of the two only"
    mask = np.isinf(want.numbers) & (got.numbers != want.numbers)
    if mask.any():
        return mask, "infinities of different sign"
    bound = tolerance.absolute + tolerance.relative * figures.magnitude
    if want.spacing is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            steps = error / np.maximum(got.spacing, want.spacing)
        slack = _SCALE_SLACK if tolerance.steps else 0.0
        mask = finite & (steps > tolerance.steps + slack) & (error > bound)
        if mask.any():
            return mask, f"more than {tolerance.steps} steps of the number format apart"
        mask = finite & (steps > slack)
        if mask.size and mask.mean() > tolerance.fraction:
            return mask, f"{mask.mean():.2%} of the elements differ, {tolerance.fraction:.2%} may"
    elif np.dtype(dtype).kind in "iub":
        if error.any():
            return error > 0, "integers differ"
    else:
        mask = finite & (error > bound)
        if mask.any():
            return mask, f"error above {tolerance.absolute:g} + {tolerance.relative:g} x largest of the row"
    rows = figures.cosine < tolerance.cosine
    if rows.any():
        return rows[:, None] & np.ones_like(finite), f"cosine of the row below {tolerance.cosine}"
    return None, ""


def _in_tensor(figures: _Figures, bad: np.ndarray, reason: str, spec: TensorSpec) -> FirstBad:
    row, column = _first(bad)
    index = (row, *(int(i) for i in np.unravel_index(column, spec.shape[1:] or (1,))))[: len(spec.shape)]
    coordinates = dict(zip(_axis_names(len(index)), index, strict=True))
    offset = (row * math.prod(spec.shape[1:]) + column) * np.dtype(spec.dtype).itemsize
    return _first_bad(figures, bad, reason, coordinates, offset)


def _in_cache(figures: _Figures, bad: np.ndarray, reason: str, spec: TensorSpec, slots: np.ndarray) -> FirstBad:
    row, dim = _first(bad)
    number, token = divmod(int(slots[row]), PAGE_TOKENS)
    page, page_bytes = CACHE_PAGES[spec.layout], spec.shape[1]
    offset = number * page_bytes + page.element_offset(token, dim, page.dims(page_bytes))
    return _first_bad(figures, bad, reason, {"page": number, "token": token, "dim": dim}, int(offset))


def _first(bad: np.ndarray) -> tuple[int, int]:
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return row, column


def _first_bad(
    figures: _Figures, bad: np.ndarray, reason: str, coordinates: dict[str, int], byte_offset: int
) -> FirstBad:
    given, expected = (_json_number(side.numbers[_first(bad)]) for side in (figures.got, figures.want))
    return FirstBad(reason, int(bad.sum()), coordinates, byte_offset, given, expected)


def _axis_names(count: int) -> tuple[str, ...]:
    """Row first; the last axis is a dim, one between them is a head."""
    return {1: ("row",), 2: ("row", "dim"), 3: ("row", "head", "dim")}.get(
        count, ("row", *(f"axis {i}" for i in range(1, count)))
    )


def _json_number(value: float) -> float | str:
    return float(value) if math.isfinite(value) else str(value)
