"""Where the elements of a cache page lie: the index maps that reading a cache on the host needs.

Names are those that a manifest gives as ``layout`` of a cache. A page holds 64 tokens. Index maps work on
Python ints and NumPy arrays alike.
"""

from dataclasses import dataclass

import numpy as np

PAGE_TOKENS = 64
TILE = 16
SCALE_BYTES = 4


def row_major_offset(token, dim, dims: int):
    """Element offset of ``(token, dim)`` in rows of ``dims`` consecutive elements."""
    return token * dims + dim


def tiled_offset(token, dim, dims: int):
    """Element offset of ``(token, dim)`` in contiguous tiles of 16 x 16, tiles along the dims first.

    Source: aiter `indexer_k_quant_and_cache` with ``preshuffle``.
    """
    return token // TILE * (TILE * dims) + dim // TILE * (TILE * TILE) + token % TILE * TILE + dim % TILE


@dataclass(frozen=True, slots=True)
class CachePage:
    """One page of a cache of one-byte elements: the elements in the order ``tiled`` says, then the scales.

    ``has_scales``: a float32 scale per token follows the 64 * dims element bytes (the indexer's key cache);
    without, the page is elements only (the MLA latent cache).
    """

    name: str
    tiled: bool
    has_scales: bool

    def dims(self, page_bytes: int) -> int:
        """Elements of a token in a page of ``page_bytes``."""
        return page_bytes // PAGE_TOKENS - (SCALE_BYTES if self.has_scales else 0)

    def element_offset(self, token, dim, dims: int):
        """Byte, within the page, of element ``dim`` of ``token`` (0..63)."""
        return (tiled_offset if self.tiled else row_major_offset)(token, dim, dims)

    def scale_offset(self, token, dims: int):
        """First byte, within the page, of the float32 scale of ``token``."""
        return PAGE_TOKENS * dims + SCALE_BYTES * token

    def elements(self, pages: np.ndarray) -> np.ndarray:
        """int8 [pages, page bytes] -> int8 [pages * 64, dims], one row per slot."""
        dims = self.dims(pages.shape[1])
        offsets = self.element_offset(np.arange(PAGE_TOKENS)[:, None], np.arange(dims)[None, :], dims)
        return pages[:, offsets].reshape(-1, dims)

    def scales(self, pages: np.ndarray) -> np.ndarray | None:
        """int8 [pages, page bytes] -> float32 [pages * 64], one per slot; None where a page has no scales."""
        if not self.has_scales:
            return None
        first = self.scale_offset(0, self.dims(pages.shape[1]))
        return np.ascontiguousarray(pages[:, first:]).view(np.float32).reshape(-1)

    def pack(self, elements: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
        """The pages whose `elements` and `scales` are these."""
        dims = elements.shape[1]
        bytes_of_token = dims + (SCALE_BYTES if self.has_scales else 0)
        pages = np.empty((len(elements) // PAGE_TOKENS, PAGE_TOKENS * bytes_of_token), np.int8)
        offsets = self.element_offset(np.arange(PAGE_TOKENS)[:, None], np.arange(dims)[None, :], dims)
        pages[:, offsets.ravel()] = elements.reshape(len(pages), -1)
        if scales is not None:
            pages[:, self.scale_offset(0, dims) :] = scales.reshape(-1, PAGE_TOKENS).view(np.int8)
        return pages


CACHE_PAGES = {
    page.name: page
    for page in (
        CachePage("plain page", tiled=False, has_scales=True),
        CachePage("preshuffled page", tiled=True, has_scales=True),
        CachePage("latent page", tiled=False, has_scales=False),
    )
}
