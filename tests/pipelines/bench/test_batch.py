"""The timed step: places, lengths and cache contents."""

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines import Artifact
from predecode.pipelines.bench.batch import cache_contents, make_batch, place, step_arguments
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Geometry, TensorSpec
from predecode.pipelines.page_layout import CACHE_PAGES
from predecode.pipelines.step_inputs import prepare

GEOMETRY = Geometry(page_tokens=64, pages=200, max_context=1000, block_table_width=16)


@pytest.mark.parametrize("context", ["1", "63", "64", "65", "777", "ragged", None])
def test_every_row_has_its_own_pages_in_no_order(context):
    batch = make_batch(GEOMETRY, 8, context)
    placement = place(GEOMETRY, batch)
    used = [table[: -(-length // 64)] for table, length in zip(placement.block_table, batch.lengths, strict=True)]
    flat = np.concatenate(used)
    assert len(set(flat)) == len(flat) == batch.pages(GEOMETRY)
    assert len(flat) == 8 or (np.diff(flat) != 1).mean() > 0.8
    for row, length in enumerate(batch.lengths):
        assert placement.positions[row] == length - 1
        assert placement.slot_mapping[row] == used[row][(length - 1) // 64] * 64 + (length - 1) % 64


def test_contexts(two_layers):
    assert make_batch(GEOMETRY, 3, "500").lengths == (500,) * 3
    assert make_batch(GEOMETRY, 3, None).lengths == (1000,) * 3
    assert make_batch(GEOMETRY, 50, None).lengths == (256,) * 50
    ragged = make_batch(GEOMETRY, 50, "ragged").lengths
    assert len(set(ragged)) > 25 and min(ragged) < 64 < max(ragged) <= 1000
    assert make_batch(GEOMETRY, 50, "ragged").lengths == ragged
    assert make_batch(GEOMETRY, 3, "ragged").lengths[0] == 1000


@pytest.mark.parametrize(
    ("rows", "context", "message"),
    [
        (1, "1001", "--context 1001 is more than the artifact's 1000 tokens"),
        (20, "1000", "20 rows of 1000 tokens take 320 pages, the artifact's pool has 200"),
        (201, None, "201 rows take 201 pages or more"),
        (201, "ragged", "201 rows take 201 pages or more"),
        (1, "0", "expected a number of tokens from 1, or 'ragged'"),
        (1, "many", "--context 'many': expected"),
        (1, "-5", "--context '-5': expected"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(rows, context, message):
    with pytest.raises(PredecodeError, match=message) as caught:
        make_batch(GEOMETRY, rows, context)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("context", ["200", "ragged"])
def test_a_session_takes_the_step(two_layers, context):
    manifest = Artifact.open(two_layers).manifest
    arguments = step_arguments(manifest, make_batch(manifest.geometry, 4, context))
    assert prepare(manifest, arguments)[:2] == (4, 4)


@pytest.mark.parametrize(
    ("name", "dtype"), [("e4m3fn", ml_dtypes.float8_e4m3fn), ("e4m3fnuz", ml_dtypes.float8_e4m3fnuz)]
)
@pytest.mark.parametrize(("layout", "page_bytes"), [("preshuffled page", 8448), ("latent page", 36864)])
def test_caches_hold_numbers(name, dtype, layout, page_bytes):
    spec = TensorSpec("layers.0.cache", "cache", (40, page_bytes), "int8", layout)
    cache = cache_contents(spec, name)
    page = CACHE_PAGES[layout]
    scales = page.scales(cache) if page.has_scales else np.ones(40 * 64, np.float32)
    values = page.elements(cache).view(dtype).astype(np.float32) * scales[:, None]
    assert cache.shape == spec.shape and np.isfinite(values).all()
    assert values.std() == pytest.approx(1, abs=0.02) and abs(values.mean()) < 0.01
    assert not (cache[0] == cache[1]).all()
    assert len(set(scales)) == 1 and np.log2(scales[0]) % 1 == 0


def test_caches_of_other_formats_are_refused():
    spec = TensorSpec("layers.0.cache", "cache", (4, 256), "int8", "latent page")
    with pytest.raises(PredecodeError, match="float32, which bench cannot fill"):
        cache_contents(spec, "float32")
