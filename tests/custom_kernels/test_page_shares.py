"""How workgroups share the pages that the indexer scores, by the device header run on the host."""

import ctypes

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.custom_kernels.host_library import load_source

SHAPES = [(9, 4, 264), (64, 4, 264), (64, 8, 132), (17, 2, 6), (3, 16, 5), (12, 0, 7), (1, 0, 9)]
"""Rows, pages that a query counts as, and workgroups."""

SOURCE = """
#include "row_pages.h"

// Of rows with so many `pages`: for each workgroup its first page and the one after its last.
template <int ROWS, int QUERY_PAGES, int SHARERS> void find_shares(const int *pages, int *shares) {
  RowPages<ROWS, QUERY_PAGES> rows = {};
  for (int row = 0; row < ROWS; ++row) {
    rows.before[row + 1] = rows.before[row] + pages[row];
    if constexpr (QUERY_PAGES > 0) rows.scored.before[row + 1] = rows.scored.before[row] + (pages[row] > 0);
  }
  for (int sharer = 0; sharer < SHARERS; ++sharer) {
    Share share = share_of_pages<SHARERS>(rows, sharer);
    *shares++ = share.first, *shares++ = share.end;
  }
}
"""


def name_of(rows: int, query_pages: int, sharers: int) -> str:
    return f"shares_{rows}_{query_pages}_{sharers}"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    entries = [
        f'extern "C" void {name_of(*shape)}(const int *pages, int *shares) {{\n'
        f"  find_shares<{', '.join(map(str, shape))}>(pages, shares);\n}}\n"
        for shape in SHAPES
    ]
    return load_source("".join([SOURCE, *entries]), tmp_path_factory.mktemp("shares"))


def shares_of(host, pages: list[int], query_pages: int, sharers: int) -> list[tuple[int, int]]:
    given, result = np.array(pages, dtype=np.int32), np.full((sharers, 2), -1, dtype=np.int32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (given, result)]
    getattr(host, name_of(len(pages), query_pages, sharers))(*pointers)
    return [tuple(share) for share in result.tolist()]


def expected_shares(pages: list[int], query_pages: int, sharers: int) -> list[list[int]]:
    """The pages of each workgroup: all work in order, each row's query before its pages, cut in even shares."""
    work, page = [], 0
    for count in pages:
        work += [None] * (query_pages if count else 0) + list(range(page, page + count))
        page += count
    least, longer = divmod(len(work), sharers)
    ends = np.cumsum([least + (sharer < longer) for sharer in range(sharers)]).tolist()
    return [[p for p in work[first:end] if p is not None] for first, end in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@given(data=st.data())
def test_a_query_counts_as_pages(host, shape, data):
    rows, query_pages, sharers = shape
    some = st.one_of(st.just(0), st.integers(1, 3), st.integers(30, 140), st.just(3168))
    pages = data.draw(st.lists(some, min_size=rows, max_size=rows))
    shares = shares_of(host, pages, query_pages, sharers)
    assert [list(range(*share)) for share in shares] == expected_shares(pages, query_pages, sharers)
    # None is left out and none taken twice, also where a share is empty.
    assert [0, *(end for _, end in shares)] == [*(first for first, _ in shares), sum(pages)]


def test_who_goes_on_with_another_row_has_fewer(host):
    counts = [end - first for first, end in shares_of(host, [128] * 64, 4, 264)]
    assert set(counts) == {28, 32} and counts[0] == 28, counts
    even = expected_shares([128] * 64, 0, 264)
    assert {len(pages) for pages in even} == {31, 32}
    assert [list(range(*share)) for share in shares_of(host, [128] * 64, 4, 264)] != even
