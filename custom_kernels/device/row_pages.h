// Pages of several rows, one row after the other, and how they are divided among workgroups.
#pragma once

#include "compiler.h"

// How many of the rows before each are scored.
template <int ROWS, bool COUNTED> struct ScoredRows {
  int before[ROWS + 1];
};
template <int ROWS> struct ScoredRows<ROWS, false> {};

// Where workgroups share the pages, a row's query counts as QUERY_PAGES more.
template <int ROWS, int QUERY_PAGES> struct RowPages {
  int before[ROWS + 1];  // how many pages lie before each row's
  [[no_unique_address]] ScoredRows<ROWS, (QUERY_PAGES > 0)> scored;
};

// The last of ROWS rows of which `holds`, which holds of the first one, and of none after one of which it does not.
template <int ROWS, typename Holds> DEVICE int last_row_where(Holds holds) {
  constexpr int HALF = 1 << (31 - __builtin_clz(ROWS));
  int row = 0;
#pragma unroll
  for (int step = HALF; step > 0; step /= 2)
    if (row + step < ROWS && holds(row + step)) row += step;
  return row;
}

// A page's row, and its place among the row's.
struct PagePlace {
  int row, index;
};

template <int ROWS, int QUERY_PAGES> DEVICE PagePlace place_of(const RowPages<ROWS, QUERY_PAGES> &pages, int page) {
  int row = last_row_where<ROWS>([&](int row) { return pages.before[row] <= page; });
  return {row, page - pages.before[row]};
}

// Some of things in a row.
struct Share {
  int first, end;
};

// One of SHARERS even shares of `total` things.
template <int SHARERS> DEVICE Share share_of(int total, int sharer) {
  int least = total / SHARERS, longer = total % SHARERS;
  int first = sharer * least + (sharer < longer ? sharer : longer);
  return {first, first + least + (sharer < longer)};
}

// One of SHARERS shares of all pages. Each takes about as long: who goes on with another row's query has fewer pages.
template <int SHARERS, int ROWS, int QUERY_PAGES>
DEVICE Share share_of_pages(const RowPages<ROWS, QUERY_PAGES> &pages, int sharer) {
  if constexpr (QUERY_PAGES == 0) {
    return share_of<SHARERS>(pages.before[ROWS], sharer);
  } else {
    auto work_before = [&](int row) { return pages.before[row] + pages.scored.before[row] * QUERY_PAGES; };
    auto page_at = [&](int work) {
      int row = last_row_where<ROWS>([&](int row) { return work_before(row) <= work; });
      int index = work - work_before(row) - QUERY_PAGES;
      return pages.before[row] + (index > 0 ? index : 0);
    };
    Share work = share_of<SHARERS>(work_before(ROWS), sharer);
    return {page_at(work.first), page_at(work.end)};
  }
}
