"""What a golden holds of caches: the rows of single tokens, not whole pools.

Before the first step, the slots of a pool hold copies of a few tokens. Two tokens with the same indexer key have the
same latent, so where a selection ends among copies, it makes no difference which of them it takes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from predecode.pipelines.page_layout import CACHE_PAGES, PAGE_TOKENS

NAN_BYTES = {"e4m3fn": 0x7F, "e4m3fnuz": -0x80}
NO_TOKEN = -1


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Rows of n tokens: ``elements`` int8 [n, dims], and ``scales`` float32 [n] where the cache's pages have them."""

    elements: np.ndarray
    scales: np.ndarray | None

    def __len__(self) -> int:
        return len(self.elements)

    def take(self, index: np.ndarray) -> "TokenRows":
        """The rows at ``index``."""
        return TokenRows(self.elements[index], None if self.scales is None else self.scales[index])

    def followed_by(self, other: "TokenRows") -> "TokenRows":
        """These rows, then those of ``other``, which has scales if these have."""
        scales = None if self.scales is None else np.concatenate([self.scales, other.scales])
        return TokenRows(np.concatenate([self.elements, other.elements]), scales)


@dataclass(frozen=True, slots=True)
class InitialCaches:
    """``tokens`` int32 [slots]: the row of each cache's ``rows`` that a slot holds, `NO_TOKEN` where it is NaN."""

    tokens: np.ndarray
    rows: Mapping[str, TokenRows]

    def pages(self, name: str, layout: str, element_format: str) -> np.ndarray:
        """The cache ``name``, int8 [pages, page bytes] laid out as ``layout``; what no token owns is NaN."""
        rows = self.rows[name]
        nothing = np.full((1, rows.elements.shape[1]), NAN_BYTES[element_format], np.int8)
        scales = None if rows.scales is None else np.full(1, np.nan, np.float32)
        # The row of NaN comes last, where NO_TOKEN finds it.
        filled = rows.followed_by(TokenRows(nothing, scales)).take(self.tokens)
        return CACHE_PAGES[layout].pack(filled.elements, filled.scales)


def rows_at(pages: np.ndarray, slots: np.ndarray, layout: str) -> TokenRows:
    """The rows of ``slots`` in a cache's ``pages``, laid out as ``layout``."""
    page = CACHE_PAGES[layout]
    numbers, where = np.unique(slots // PAGE_TOKENS, return_inverse=True)
    index = where * PAGE_TOKENS + slots % PAGE_TOKENS
    return TokenRows(page.elements(pages[numbers]), page.scales(pages[numbers])).take(index)
