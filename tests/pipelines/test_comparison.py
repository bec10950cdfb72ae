"""The comparison of results: what passes, and that each kind of fault is found, named and placed."""

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines.comparison import compare_cache, compare_result
from predecode.pipelines.golden_caches import rows_at
from predecode.pipelines.manifest import TensorSpec, Tolerance

LOOSE = Tolerance(relative=0.01, absolute=1e-6, cosine=0.999)


def compare_floats(given, expected, tolerance=LOOSE):
    spec = TensorSpec("logits", "output", expected.shape, str(expected.dtype), "row-major")
    return compare_result("logits", spec, given, expected, tolerance)


def floats(shape=(4, 32), dtype=np.float32):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def test_equal_values_pass():
    result = compare_floats(floats(), floats())
    assert (result.passed, result.max_abs, result.max_rel) == (True, 0.0, 0.0)
    assert result.cosine == pytest.approx(1.0)


def test_figures():
    expected = np.array([[1.0, -4.0], [10.0, 0.0]], np.float32)
    given = np.array([[1.02, -4.0], [10.05, 0.0]], np.float32)
    result = compare_floats(given, expected)
    assert result.max_abs == pytest.approx(0.05, rel=1e-4)
    assert result.max_rel == pytest.approx(0.005, rel=1e-4)
    assert result.passed


def test_every_row_counts():
    """A fault in the smallest of many rows is not hidden by the magnitude of the others."""
    expected = floats()
    expected[3] *= 1e-4
    given = expected.copy()
    given[3, 7] += 5e-5
    result = compare_floats(given, expected)
    assert not result.passed
    assert result.first_bad.coordinates == {"row": 3, "dim": 7}
    assert result.first_bad.byte_offset == (3 * 32 + 7) * 4
    assert result.first_bad.count == 1


def test_coordinates_of_heads():
    expected = floats((2, 3, 8), ml_dtypes.bfloat16)
    given = expected.copy()
    given[1, 2, 5] = 100
    bad = compare_floats(given, expected).first_bad
    assert bad.coordinates == {"row": 1, "head": 2, "dim": 5}
    assert bad.byte_offset == ((1 * 3 + 2) * 8 + 5) * 2
    assert bad.given == 100.0


@pytest.mark.parametrize(
    ("given", "expected", "reason"),
    [
        (np.nan, 0.0, "NaN in one"),
        (0.0, np.nan, "NaN in one"),
        (np.inf, 0.0, "infinity in one"),
        (np.inf, -np.inf, "different sign"),
    ],
)
def test_special_values(given, expected, reason):
    want, got = floats(), floats()
    want[2, 3], got[2, 3] = expected, given
    bad = compare_floats(got, want, Tolerance(relative=1e9)).first_bad
    assert reason in bad.reason
    assert bad.coordinates == {"row": 2, "dim": 3}


def test_equal_special_values_pass():
    values = floats()
    values[0, :3] = np.nan, np.inf, -np.inf
    assert compare_floats(values, values).passed


def test_a_turned_row_fails_by_cosine():
    expected = np.full((3, 64), 1e-3, np.float32)
    given = expected.copy()
    given[1, ::2] *= -1
    loose = Tolerance(absolute=1.0, cosine=0.9)
    assert "cosine" in compare_floats(given, expected, loose).first_bad.reason
    assert compare_floats(given, expected, Tolerance(absolute=1.0)).passed


def test_a_missing_row_has_no_cosine():
    expected = floats()
    given = expected.copy()
    given[2] = 0
    assert compare_floats(given, expected, Tolerance(absolute=100.0, cosine=0.5)).cosine == pytest.approx(0.0)


def test_integers_must_be_equal():
    expected = np.arange(6, dtype=np.int32).reshape(2, 3)
    given = expected.copy()
    assert compare_floats(given, expected).passed
    given[1, 1] += 1
    assert compare_floats(given, expected, Tolerance(relative=10.0)).first_bad.reason == "integers differ"


def key_pages(keys: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float [tokens, 128] / scale as FP8, laid out as preshuffled pages by reshaping."""
    codes = (keys / scales[:, None]).astype(ml_dtypes.float8_e4m3fn).view(np.int8)
    pages = codes.reshape(-1, 4, 16, 8, 16).transpose(0, 1, 3, 2, 4).reshape(-1, 8192)
    return np.concatenate([pages, scales.astype(np.float32).reshape(-1, 64).view(np.int8)], axis=1)


def compare_pages(
    given, expected, tolerance, *, before=None, slots=None, layout="preshuffled page", element_format="e4m3fn"
):
    """All slots are written, unless ``slots`` are given."""
    slots = np.arange(64 * len(expected)) if slots is None else np.array(slots, np.int64)
    spec = TensorSpec("layers.0.indexer_cache", "cache", expected.shape, "int8", layout)
    before = expected if before is None else before
    rows = rows_at(expected, slots, layout)
    return compare_cache(spec.name, spec, before, given, slots, rows, tolerance, element_format)


@pytest.fixture
def keys():
    return np.random.default_rng(2).standard_normal((128, 128)) * 50


ONE_STEP = Tolerance(steps=1, fraction=0.01)


def test_page_fault_is_placed_in_logical_coordinates(keys):
    scales = np.ones(128)
    expected, changed = key_pages(keys, scales), keys.copy()
    changed[64 + 37, 90] = 448.0
    bad = compare_pages(key_pages(changed, scales), expected, ONE_STEP).first_bad
    assert bad.coordinates == {"page": 1, "token": 37, "dim": 90}
    # token 37 is row 5 of tile row 2, dim 90 is column 10 of tile 5
    assert bad.byte_offset == 8448 + 2 * 2048 + 5 * 256 + 5 * 16 + 10
    assert bad.given == 448.0


def test_one_code_apart_is_one_step(keys):
    pages = key_pages(keys, np.ones(128))
    moved = pages.copy()
    moved[0, 100] += 1
    assert compare_pages(moved, pages, ONE_STEP).passed
    assert not compare_pages(moved, pages, Tolerance()).passed
    moved[0, 100] += 1
    assert "more than 1 steps" in compare_pages(moved, pages, ONE_STEP).first_bad.reason


def test_small_elements_may_be_as_far_as_the_row_allows(keys):
    keys[3, 4], moved = 0.001, keys.copy()
    moved[3, 4] = 0.5
    pair = key_pages(moved, np.ones(128)), key_pages(keys, np.ones(128))
    assert not compare_pages(*pair, Tolerance(steps=1)).passed
    assert compare_pages(*pair, Tolerance(steps=1, relative=0.01)).passed
    assert not compare_pages(*pair, Tolerance(steps=1, relative=0.001)).passed


def test_many_codes_apart_exceed_the_fraction(keys):
    pages = key_pages(keys, np.ones(128))
    moved = pages.copy()
    moved[:, :8192:10] += 1
    assert "of the elements differ" in compare_pages(moved, pages, ONE_STEP).first_bad.reason


def test_a_scale_one_power_apart_keeps_its_values(keys):
    """The same keys on the next coarser grid: half of the codes change by a step, no value by more."""
    scales = np.ones(128)
    coarser = scales.copy()
    coarser[5] = 2.0
    pair = key_pages(keys, coarser), key_pages(keys, scales)
    assert compare_pages(*pair, Tolerance(steps=1)).passed
    wrong = pair[1].copy()
    wrong[0, 8192 + 4 * 5 : 8192 + 4 * 6] = np.array([2.0], np.float32).view(np.int8)
    assert compare_pages(wrong, pair[1], Tolerance(steps=1)).first_bad.coordinates["token"] == 5


def test_the_last_bit_of_a_scale_is_no_step(keys):
    scales = np.full(128, 0.3, np.float32)
    pages, moved = key_pages(keys, scales), key_pages(keys, scales)
    moved[0, 8192:] = np.nextafter(scales[:64], np.float32(1)).view(np.int8)
    assert compare_pages(moved, pages, Tolerance(steps=1, fraction=0.0)).passed
    moved[0, 100] += 1
    assert compare_pages(moved, pages, Tolerance(steps=1)).passed
    assert not compare_pages(moved, pages, Tolerance()).passed


def test_the_other_tile_order_fails(keys):
    pages = key_pages(keys, np.ones(128))
    plain = pages.copy()
    plain[:, :8192] = pages[:, :8192].reshape(-1, 4, 8, 16, 16).transpose(0, 1, 3, 2, 4).reshape(-1, 8192)
    assert not compare_pages(plain, pages, Tolerance(steps=3)).passed


def test_poison_must_be_the_same(keys):
    pages = key_pages(keys, np.ones(128))
    pages[1] = 0x7F
    assert compare_pages(pages, pages, ONE_STEP).passed
    written = pages.copy()
    written[1, 300] = 0
    assert "NaN" in compare_pages(written, pages, ONE_STEP).first_bad.reason


@pytest.mark.parametrize("byte", [8192 - 1, 8192 + 4 * 63 + 3])
def test_a_byte_that_no_row_writes_must_stay(keys, byte):
    """The last key's last element, and the sign of the last scale."""
    before = key_pages(keys, np.ones(128))
    after = before.copy()
    after[0, :16] = 5
    written = [0]
    assert compare_pages(after, after, Tolerance(), before=before, slots=written).passed
    after[1, byte] ^= -0x80
    bad = compare_pages(after, after, Tolerance(relative=9.0, steps=9), before=before, slots=written).first_bad
    assert bad.reason == "changed, though no row writes there"
    assert (bad.coordinates["page"], bad.coordinates["token"]) == (1, 63)


def test_nan_that_no_row_writes_must_stay_the_same_nan(keys):
    before = key_pages(keys, np.ones(128))
    before[1, :8192] = 0x7F
    after = before.copy()
    after[1, 300] = -1
    assert not compare_pages(after, after, Tolerance(), before=before, slots=[]).passed
    assert compare_pages(before, before, Tolerance(), slots=[]).passed


def test_rows_that_were_not_written_are_noticed(keys):
    expected = key_pages(keys, np.ones(128))
    before = np.full_like(expected, 0x7F)
    assert "NaN" in compare_pages(before, expected, ONE_STEP, before=before, slots=[70]).first_bad.reason


@pytest.mark.parametrize("element_format", ["e4m3fn", "e4m3fnuz"])
def test_every_neighbouring_code_is_at_most_one_step_apart(element_format):
    codes = np.arange(0x7F, dtype=np.uint8).view(np.int8)
    expected = np.zeros((1, 64 * 16), np.int8)
    expected[0, :126], given = codes[:-1], expected.copy()
    given[0, :126] = codes[1:]
    options = {"layout": "latent page", "element_format": element_format}
    assert compare_pages(given, expected, Tolerance(steps=1), **options).passed
    # Two codes apart are two steps wherever both are in one binade: here among the subnormal ones.
    for code in range(6):
        given = expected.copy()
        given[0, code] = codes[code + 2]
        assert not compare_pages(given, expected, Tolerance(steps=1), **options).passed
