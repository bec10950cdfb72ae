// What the indexer scores: the pages of all rows of a batch, one row after the other.
#pragma once

#include "indexer_query.h"
#include "layouts.h"
#include "reduce.h"
#include "row_pages.h"
#include "uniform.h"

// `Query` is a `PreparedQuery` or a `RawQuery`.
template <typename Query> struct IndexerInputs {
  Query query;
  const uint8 *cache;
  const int *block_table, *lengths;
  int width, topk;
};

// Fills `pages`; the number of all pages. Rows of at most topk tokens have none. Each wave counts them all, so that
// they wait for each other only once; before that, learn(row) is called once for each row.
template <int ROWS, int QUERY_PAGES, typename Query, typename Learn>
DEVICE int count_pages(const IndexerInputs<Query> &in, RowPages<ROWS, QUERY_PAGES> &pages, Learn learn) {
  int before = 0, scored_before = 0;
#pragma unroll 4
  for (int first = 0; first < ROWS; first += WAVE_SIZE) {
    int row = first + lane_id();
    int length = row < ROWS ? in.lengths[row] : 0;
    if (wave_id() == 0 && row < ROWS) learn(row);
    int upto = before + inclusive_sum_of_wave(length > in.topk ? divide_up(length, PAGE_TOKENS) : 0);
    if (wave_id() == 0 && row < ROWS) pages.before[row + 1] = upto;
    before = wave_read(upto, WAVE_SIZE - 1);
    if constexpr (QUERY_PAGES > 0) {
      LaneMask scored = ballot(length > in.topk);
      if (wave_id() == 0 && row < ROWS)
        pages.scored.before[row + 1] = scored_before + __builtin_popcountll(uint64(scored) << (63 - lane_id()));
      scored_before += __builtin_popcountll(scored);
    }
  }
  if (thread_id() == 0) {
    pages.before[0] = 0;
    if constexpr (QUERY_PAGES > 0) pages.scored.before[0] = 0;
  }
  barrier();
  return uniform(before);
}

// A page's number in the pool.
template <typename Query> DEVICE int page_number(const IndexerInputs<Query> &in, const PagePlace &place) {
  return in.block_table[row_major_offset(place.row, place.index, in.width)];
}
