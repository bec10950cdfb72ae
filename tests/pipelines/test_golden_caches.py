"""Caches from rows of tokens, and back."""

import numpy as np
import pytest

from predecode.pipelines.golden_caches import InitialCaches, TokenRows, rows_at

TOKENS = np.array([-1, 1, 0, 2, *[-1] * 59, 2, *[0] * 64], np.int32)


def initial(layout: str) -> InitialCaches:
    dims, scales = (128, np.array([1, 2, 4], np.float32)) if layout != "latent page" else (24, None)
    elements = np.random.default_rng(0).integers(-100, 100, (3, dims)).astype(np.int8)
    return InitialCaches(TOKENS, {"cache": TokenRows(elements, scales)})


@pytest.mark.parametrize("layout", ["plain page", "preshuffled page", "latent page"])
def test_every_slot_holds_its_token(layout):
    caches = initial(layout)
    rows = caches.rows["cache"]
    slots = np.array([64, 3, 63, 1, 127, 3])
    found = rows_at(caches.pages("cache", layout, "e4m3fn"), slots, layout)
    np.testing.assert_array_equal(found.elements, rows.elements[TOKENS[slots]])
    if rows.scales is not None:
        np.testing.assert_array_equal(found.scales, rows.scales[TOKENS[slots]])


@pytest.mark.parametrize(("element_format", "byte"), [("e4m3fn", 0x7F), ("e4m3fnuz", -0x80)])
def test_what_no_token_owns_is_nan(element_format, byte):
    found = rows_at(initial("plain page").pages("cache", "plain page", element_format), np.array([0, 62]), "plain page")
    assert (found.elements == byte).all() and np.isnan(found.scales).all()


def test_no_slots_have_no_rows():
    found = rows_at(initial("plain page").pages("cache", "plain page", "e4m3fn"), np.array([], np.int64), "plain page")
    assert found.elements.shape == (0, 128) and found.scales.shape == (0,)
