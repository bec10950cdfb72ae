// The pages that the indexer scores: those of all rows of a batch, one row after the other.
#pragma once

#include "indexer_query.h"
#include "layouts.h"
#include "reduce.h"
#include "uniform.h"

// `Query` is a `PreparedQuery` or a `RawQuery`.
template <typename Query> struct IndexerInputs {
  Query query;
  const uint8 *cache;
  const int *block_table, *lengths;
  int width, topk;
};

template <int ROWS> struct RowPages {
  int before[ROWS + 1];  // how many pages lie before each row's
};

// Fills `pages`; the number of all pages. Rows of at most topk tokens have none. Each wave counts them all, so that
// they wait for each other only once; before that, learn(row) is called once for each row.
template <int ROWS, typename Query, typename Learn>
DEVICE int count_pages(const IndexerInputs<Query> &in, RowPages<ROWS> &pages, Learn learn) {
  int before = 0;
#pragma unroll 4
  for (int first = 0; first < ROWS; first += WAVE_SIZE) {
    int row = first + lane_id();
    int length = row < ROWS ? in.lengths[row] : 0;
    if (wave_id() == 0 && row < ROWS) learn(row);
    int upto = before + inclusive_sum_of_wave(length > in.topk ? divide_up(length, PAGE_TOKENS) : 0);
    if (wave_id() == 0 && row < ROWS) pages.before[row + 1] = upto;
    before = wave_read(upto, WAVE_SIZE - 1);
  }
  if (thread_id() == 0) pages.before[0] = 0;
  barrier();
  return uniform(before);
}

// A page's row, and its place among the row's.
struct PagePlace {
  int row, index;
};

template <int ROWS> DEVICE PagePlace place_of(const RowPages<ROWS> &pages, int page) {
  constexpr int HALF = 1 << (31 - __builtin_clz(ROWS));
  PagePlace place = {};
#pragma unroll
  for (int step = HALF; step > 0; step /= 2)
    if (place.row + step < ROWS && pages.before[place.row + step] <= page) place.row += step;
  place.index = page - pages.before[place.row];
  return place;
}

// A page's number in the pool.
template <typename Query> DEVICE int page_number(const IndexerInputs<Query> &in, const PagePlace &place) {
  return in.block_table[row_major_offset(place.row, place.index, in.width)];
}

// One of SHARERS even shares of `total` things.
struct Share {
  int first, end;
};

template <int SHARERS> DEVICE Share share_of(int total, int sharer) {
  int least = total / SHARERS, longer = total % SHARERS;
  int first = sharer * least + (sharer < longer ? sharer : longer);
  return {first, first + least + (sharer < longer)};
}
