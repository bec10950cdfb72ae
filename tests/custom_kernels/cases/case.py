"""One call of an op with its arguments, and how its results are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tolerance of one result.

    ``exact``: bytes equal. Otherwise NaN and infinity masks must be equal, and for every row (first axis)
    ``max |given - expected| <= absolute + relative * max |expected row|``. ``steps`` allows FP8 results to be
    that many codes apart on at most ``fraction`` of the elements. ``absolute`` may be a tensor, of a bound for each
    element. ``region`` limits the comparison to elements
    where the boolean tensor is true (a kernel may leave the rest unwritten).
    """

    exact: bool = False
    relative: float = 0.0
    absolute: float | torch.Tensor = 0.0
    steps: int = 0
    fraction: float = 1.0
    region: torch.Tensor | None = None


EXACT = Comparison(exact=True)


@dataclass(frozen=True, slots=True)
class Case:
    """``arguments`` in schema order (tensors, scalars, strings), one `Comparison` per result, or several that all
    must hold."""

    label: str
    arguments: tuple[Any, ...]
    compare: tuple[Comparison | tuple[Comparison, ...], ...]


def _flat_bytes(tensor: torch.Tensor) -> torch.Tensor:
    # Flattened first: a [G, 1] tensor may count as contiguous and still not be viewable as bytes.
    return tensor.flatten().contiguous().view(torch.uint8)


def _fp8_steps(given: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Distance in codes between two FP8 tensors (sign-magnitude order, both zeros equal)."""

    def ordinal(t):
        code = t.view(torch.uint8).to(torch.int32)
        return torch.where(code >= 128, 128 - code, code)

    return (ordinal(given) - ordinal(expected)).abs()


def mismatch(given: torch.Tensor, expected: torch.Tensor, rule: Comparison | tuple[Comparison, ...]) -> str | None:
    """None where ``given`` meets ``rule`` against ``expected``; else one line that names the worst element."""
    if isinstance(rule, tuple):
        return next(filter(None, (mismatch(given, expected, part) for part in rule)), None)
    if given.shape != expected.shape or given.dtype != expected.dtype:
        return f"got {given.dtype}{list(given.shape)}, expected {expected.dtype}{list(expected.shape)}"
    region = torch.ones_like(expected, dtype=torch.bool) if rule.region is None else rule.region
    if rule.exact:
        differs = _flat_bytes(given) != _flat_bytes(expected)
        bad = differs.reshape(*expected.shape, -1).any(-1) & region
        return _describe(bad, given, expected, "bytes differ")
    if rule.steps:
        apart = _fp8_steps(given, expected)
        bad = (apart > rule.steps) & region
        if bad.any():
            return _describe(bad, given, expected, f"more than {rule.steps} codes apart")
        different = (apart > 0) & region
        if different.float().mean() > rule.fraction:
            return _describe(different, given, expected, f"more than {rule.fraction:.1e} of the codes differ")
        return None
    g, e = given.double(), expected.double()
    for name, mask in (("NaN", torch.isnan), ("infinity", torch.isinf)):
        bad = (mask(g) != mask(e)) & region
        if bad.any():
            return _describe(bad, given, expected, f"{name} masks differ")
    finite = torch.isfinite(e) & region
    bad_infinity = torch.isinf(e) & region & (g != e)
    if bad_infinity.any():
        return _describe(bad_infinity, given, expected, "infinities differ in sign")
    magnitude = torch.where(finite, e.abs(), 0.0).flatten(1).amax(1) if e.dim() > 1 else e.abs()
    bound = rule.absolute + rule.relative * magnitude.reshape(-1, *[1] * (e.dim() - 1))
    error = torch.where(finite, (g - e).abs(), 0.0)
    absolute = "its own bound" if isinstance(rule.absolute, torch.Tensor) else rule.absolute
    return _describe(error > bound, given, expected, f"error above {absolute} + {rule.relative} * row max")


def mismatches(
    given: Sequence[torch.Tensor], expected: torch.Tensor | Sequence[torch.Tensor], case: Case
) -> list[str | None]:
    """`mismatch` of each result of ``case``."""
    expected = [expected] if isinstance(expected, torch.Tensor) else expected
    return [mismatch(g, e, rule) for g, e, rule in zip(given, expected, case.compare, strict=True)]


def _describe(bad: torch.Tensor, given: torch.Tensor, expected: torch.Tensor, why: str) -> str | None:
    if not bad.any():
        return None
    first = tuple(int(i) for i in bad.nonzero()[0])
    return (
        f"{why}: {int(bad.sum())} of {bad.numel()} elements, first at {first}: "
        f"got {given[first].float().item()}, expected {expected[first].float().item()}"
    )
