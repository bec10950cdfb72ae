"""The functions that hardware approximates: within one unit in the last place of the true value; denormals
are flushed."""

import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

RANGES = {
    "v_exp_f32": (np.exp2, -125, 127),
    "v_log_f32": (np.log2, 1e-6, 1e9),
    "v_rcp_f32": (lambda x: 1 / x, -1e6, 1e6),
    "v_rsq_f32": (lambda x: 1 / np.sqrt(x), 1e-9, 1e9),
    "v_sqrt_f32": (np.sqrt, 0, 1e12),
    "v_sin_f32": (lambda x: np.sin(2 * np.pi * x), -4, 4),
    "v_cos_f32": (lambda x: np.cos(2 * np.pi * x), -4, 4),
}


def _apply(text: str, values: np.ndarray) -> np.ndarray:
    results = []
    for part in values.reshape(-1, 64):
        group = make_group()
        group.vgpr(0)[:] = part.view(np.uint32)
        group.run(kernel(text))
        results.append(group.vgpr(1).view(np.float32).copy())
    return np.concatenate(results)


@pytest.mark.parametrize("name", RANGES)
def test_accuracy(name):
    function, low, high = RANGES[name]
    values = np.random.default_rng(0).uniform(low, high, 512).astype(np.float32)
    got, exact = _apply(f"{name} v1, v0", values), function(values.astype(np.float64))
    unit = np.spacing(
        np.maximum(np.abs(exact), 2.0**-24 if "sin" in name or "cos" in name or "log" in name else 0).astype(np.float32)
    )
    assert (np.abs(got - exact) <= unit).all()


SPECIAL = {
    "v_exp_f32": [(0, 1), (np.inf, np.inf), (-np.inf, 0), (128, np.inf), (-140, 0), (1, 2), (np.nan, np.nan)],
    "v_log_f32": [(0, -np.inf), (1, 0), (np.inf, np.inf), (-1, np.nan), (8, 3), (1e-40, -np.inf)],
    "v_rcp_f32": [
        (0, np.inf),
        (-0.0, -np.inf),
        (np.inf, 0),
        (1e-40, np.inf),
        (2.0**127, 0),
        (np.nan, np.nan),
    ],
    "v_rsq_f32": [(0, np.inf), (4, 0.5), (-1, np.nan), (np.inf, 0)],
    "v_sqrt_f32": [(-0.0, -0.0), (-1, np.nan), (9, 3), (1e-40, 0)],
}


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name):
    pairs = np.array(SPECIAL[name], np.float32)
    got = _apply(f"{name} v1, v0", np.resize(pairs[:, 0], 64))[: len(pairs)]
    np.testing.assert_array_equal(np.isnan(got), np.isnan(pairs[:, 1]))
    number = ~np.isnan(got)
    np.testing.assert_array_equal(got[number].view(np.uint32), pairs[number, 1].view(np.uint32))


def test_ldexp():
    cases = [
        (1.5, 3, 12.0),
        (np.inf, -2000, np.inf),
        (1.0, -149, 2.0**-149),
        (1.0, -150, 0.0),
        (3.0, -150, 2.0**-148),
        (0.0, 5000, 0.0),
        (1.0, 5000, np.inf),
        (-(2.0**-149), 200, -(2.0**51)),
    ]
    group = make_group()
    group.vgpr(0)[:8] = np.array([a for a, _, _ in cases], np.float32).view(np.uint32)
    group.vgpr(1)[:8] = np.array([b for _, b, _ in cases], np.int32).view(np.uint32)
    group.run(kernel("v_ldexp_f32 v2, v0, v1"))
    np.testing.assert_array_equal(group.vgpr(2).view(np.float32)[:8], np.array([c for _, _, c in cases], np.float32))


SINGLE = """
    v_div_scale_f32 v2, s[4:5], v1, v1, v0
    v_rcp_f32 v3, v2
    v_fma_f32 v4, -v2, v3, 1.0
    v_fma_f32 v3, v4, v3, v3
    v_div_scale_f32 v5, vcc, v0, v1, v0
    v_mul_f32 v6, v5, v3
    v_fma_f32 v7, -v2, v6, v5
    v_fma_f32 v6, v7, v3, v6
    v_fma_f32 v2, -v2, v6, v5
    v_div_fmas_f32 v2, v2, v3, v6
    v_div_fixup_f32 v8, v2, v1, v0
"""
DOUBLE = """
    v_div_scale_f64 v[4:5], s[4:5], v[2:3], v[2:3], v[0:1]
    v_rcp_f64 v[6:7], v[4:5]
    v_fma_f64 v[12:13], -v[4:5], v[6:7], 1.0
    v_fma_f64 v[6:7], v[6:7], v[12:13], v[6:7]
    v_fma_f64 v[12:13], -v[4:5], v[6:7], 1.0
    v_fma_f64 v[6:7], v[6:7], v[12:13], v[6:7]
    v_div_scale_f64 v[10:11], vcc, v[0:1], v[2:3], v[0:1]
    v_mul_f64 v[14:15], v[10:11], v[6:7]
    v_fma_f64 v[4:5], -v[4:5], v[14:15], v[10:11]
    v_div_fmas_f64 v[4:5], v[4:5], v[6:7], v[14:15]
    v_div_fixup_f64 v[8:9], v[4:5], v[2:3], v[0:1]
"""


def _pairs(kind) -> tuple[np.ndarray, np.ndarray]:
    """[2, 512] numerators and denominators over the whole range, specials first."""
    rng = np.random.default_rng(1)
    bits, unsigned = (32, np.uint32) if kind is np.float32 else (64, np.uint64)
    values = rng.integers(0, 2**bits - 1, (2, 512), dtype=np.uint64, endpoint=True).astype(unsigned).view(kind)
    info = np.finfo(kind)
    special = [
        1,
        0,
        np.inf,
        5,
        info.tiny,
        info.max,
        info.smallest_subnormal,
        -0.0,
        np.nan,
        -info.max,
        3,
        1e-30,
    ]
    grid = np.array([(x, y) for x in special for y in special], kind)
    values[:, : len(grid)] = grid.T
    return values[0], values[1]


@pytest.mark.parametrize("kind,text", [(np.float32, SINGLE), (np.float64, DOUBLE)])
def test_whole_division(kind, text):
    """The sequence that the compiler emits divides correctly, over the full range."""
    run = kernel(text)
    a, b = _pairs(kind)
    words = np.dtype(kind).itemsize // 4
    results = []
    for first in range(0, 512, 64):
        group = make_group()
        for i, part in enumerate((a[first : first + 64], b[first : first + 64])):
            for word, column in enumerate(np.ascontiguousarray(part).view(np.uint32).reshape(64, words).T):
                group.vgpr(i * words + word)[:] = column
        group.run(run)
        results.append(np.stack([group.vgpr(8 + word) for word in range(words)], 1).copy().view(kind)[:, 0])
    got = np.concatenate(results)
    with np.errstate(all="ignore"):
        expected = a / b
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    number = ~np.isnan(expected)
    wrong = number & (got != expected)
    # A denormal result passes through two roundings in double precision.
    assert not wrong[~((np.abs(expected) < np.finfo(kind).tiny) & (kind is np.float64))].any(), [
        (x, y, g, e) for x, y, g, e in zip(a[wrong], b[wrong], got[wrong], expected[wrong], strict=False)
    ][:5]
