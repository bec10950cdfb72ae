"""The index maps of cache pages, against maps built by reshaping."""

import numpy as np
import pytest

from predecode.pipelines.page_layout import CACHE_PAGES


def reshaped_offsets(name: str, dims: int) -> np.ndarray:
    """[64, dims] byte of each element: numbers laid out as the page's picture and put in logical order."""
    numbers = np.arange(64 * dims)
    if name == "preshuffled page":
        # K[token // 16][dim // 16][token % 16][dim % 16]
        return numbers.reshape(4, dims // 16, 16, 16).transpose(0, 2, 1, 3).reshape(64, dims)
    return numbers.reshape(64, dims)


@pytest.mark.parametrize(("name", "dims"), [("plain page", 128), ("preshuffled page", 128), ("latent page", 576)])
def test_offsets(name, dims):
    page = CACHE_PAGES[name]
    token, dim = np.meshgrid(np.arange(64), np.arange(dims), indexing="ij")
    np.testing.assert_array_equal(page.element_offset(token, dim, dims), reshaped_offsets(name, dims))
    assert sorted(page.element_offset(token, dim, dims).ravel()) == list(range(64 * dims))


def test_page_orders_differ():
    assert (reshaped_offsets("plain page", 128) != reshaped_offsets("preshuffled page", 128)).any()


@pytest.mark.parametrize("name", ["plain page", "preshuffled page"])
def test_reading_keys_and_scales(name):
    random = np.random.default_rng(0)
    keys = random.integers(-128, 128, (3, 64, 128)).astype(np.int8)
    scales = random.random((3, 64)).astype(np.float32)
    pages = np.zeros((3, 8448), np.int8)
    for page in range(3):
        pages[page, reshaped_offsets(name, 128)] = keys[page]
        pages[page, 8192:] = scales[page].view(np.int8)
    np.testing.assert_array_equal(CACHE_PAGES[name].elements(pages), keys.reshape(-1, 128))
    np.testing.assert_array_equal(CACHE_PAGES[name].scales(pages), scales.ravel())
    np.testing.assert_array_equal(CACHE_PAGES[name].pack(keys.reshape(-1, 128), scales.ravel()), pages)


def test_latent_pages_have_no_scales():
    pages = np.arange(2 * 64 * 576).astype(np.int8).reshape(2, -1)
    latent = CACHE_PAGES["latent page"]
    assert latent.scales(pages) is None
    np.testing.assert_array_equal(latent.elements(pages), pages.reshape(-1, 576))
    np.testing.assert_array_equal(latent.pack(pages.reshape(-1, 576), None), pages)


@pytest.mark.parametrize("name", ["plain page", "preshuffled page"])
def test_kernels_use_the_same_map(name):
    layouts = pytest.importorskip("predecode.custom_kernels.layouts")
    token, dim = np.meshgrid(np.arange(64), np.arange(128), indexing="ij")
    page, kernels_page = CACHE_PAGES[name], layouts.INDEXER_PAGES[name]
    np.testing.assert_array_equal(page.element_offset(token, dim, 128), kernels_page.key_offset(token, dim, 1))
    np.testing.assert_array_equal(page.scale_offset(token, 128), kernels_page.scale_offset(token, 1))
