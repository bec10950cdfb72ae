// Indexer scores by warpgroups (NVIDIA's sm_90). All workgroups share the pages, and a workgroup's warpgroups take its
// pages in turn. The copy engine brings the next pages into workgroup memory, the first ones while the queries may still
// be made. A wave multiplies its 16 tokens of a page with the row's query, which lies there as float16.
#pragma once

#include "bulk_copy.h"
#include "grid.h"
#include "indexer_pages.h"
#include "indexer_warpgroup_query.h"
#include "pipeline.h"
#include "warpgroup_matrix.h"

#if defined(__NVPTX__)
// Of so few rows a workgroup rarely has pages of two: no query counts among the pages.
constexpr int FEW_ROWS = 8;

template <typename Query, int HEAD_TILES, int ROWS> struct IndexerRows {
  using OwnQuery = WarpgroupQuery<Query, HEAD_TILES * TILE>;
  OwnQuery query;
  RowPages<ROWS, (ROWS > FEW_ROWS ? OwnQuery::WORTH_PAGES : 0)> pages;
  [[no_unique_address]] KnownRows<Query, ROWS> known;
};

// The pages that a warpgroup multiplies next.
template <int SLOTS> struct PageRing {
  alignas(16) uint8 slots[SLOTS][INDEXER_PAGE_BYTES];
  Arrival arrivals[SLOTS];
};

// Two pages on their way to each warpgroup keep memory busy. Few rows have few pages: beside a query of 64 heads one is
// enough, and takes fewer registers.
template <typename Query, int HEAD_TILES, int ROWS, int THREADS> struct IndexerShared {
  static constexpr int WARPGROUPS = THREADS / WAVE_SIZE / WARPGROUP_WAVES;
  static constexpr int MEMORY = (ROWS > FEW_ROWS ? 56 : 48) * 1024;
  static constexpr int LEFT = MEMORY - int(sizeof(IndexerRows<Query, HEAD_TILES, ROWS>));
  static constexpr int FITTING = LEFT / int(WARPGROUPS * sizeof(PageRing<1>));
  static constexpr int SLOTS = FITTING < 2 ? FITTING : 2;
  static_assert(SLOTS > 0, "workgroup memory does not hold the counts of so many rows");
  PageRing<SLOTS> rings[WARPGROUPS];
  IndexerRows<Query, HEAD_TILES, ROWS> rows;
};

// The workgroup whose share is scored, perhaps before there are queries.
using IndexerWorkgroup = EarlyWorkgroup;

// The token of this wave's 16 whose score the lane gets; pairs of lanes get the same one, and the first stores it.
DEVICE int own_token() { return lane_id() / 4 + lane_id() % 2 * 8; }
DEVICE bool stores_own_token() { return (lane_id() & 2) == 0; }

// max(0, value); NaN stays.
DEVICE float positive_part(float value) { return __nvvm_fmax_nan_f(value, 0.0f); }

// Of the lane's own token, before its scale.
template <int HEADS> DEVICE float weighted_sum(const WarpgroupSums<HEADS> &products, const float (&weights)[HEADS]) {
  float sums[2] = {};
#pragma unroll
  for (int i = 0; i < HEADS / 8; ++i) {
    float2 of_lane = *(const float2 *)(weights + 8 * i + lane_id() % 4 * 2);
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
      for (int half = 0; half < 2; ++half) sums[half] += of_lane[j] * positive_part(products[i][half][j]);
  }
  // Two lanes exchange halves, so that the second step has only one sum to add.
  bool lower = lane_id() & 1;
  float sum = (lower ? sums[1] : sums[0]) + wave_read(lower ? sums[0] : sums[1], lane_id() ^ 1);
  return sum + wave_read(sum, lane_id() ^ 2);
}

// The share of `workgroup` of WORKGROUPS.
template <int WORKGROUPS, typename Query, int HEAD_TILES, int ROWS, int THREADS>
DEVICE void score_share(const IndexerInputs<Query> &in, IndexerWorkgroup workgroup,
                        IndexerShared<Query, HEAD_TILES, ROWS, THREADS> &shared, float *logits) {
  using Shared = IndexerShared<Query, HEAD_TILES, ROWS, THREADS>;
  constexpr int HEADS = HEAD_TILES * TILE, SLOTS = Shared::SLOTS, WARPGROUPS = Shared::WARPGROUPS;
  auto &[query, row_pages, known_rows] = shared.rows;
  auto &ring = shared.rings[warpgroup_id()];
  int wave = wave_id() % WARPGROUP_WAVES, token = wave * TILE + own_token();
  if (wave == 0 && lane_id() < SLOTS) start(ring.arrivals[lane_id()]);
  publish_to_engines();
  auto learn = [&](int row) INLINE { learn_row(in.query, row, known_rows); };
  count_pages(in, row_pages, learn);
  auto [begin, last] = share_of_pages<WORKGROUPS>(row_pages, workgroup.x);

  // Pages are counted from `begin`; this warpgroup's `i`-th one is first_page + i * WARPGROUPS. Its first wave orders
  // the copies; each lane knows the number of one of WAVE_SIZE pages.
  int pages = last - begin, first_page = warpgroup_id(), known = -1, number;
  auto order_page = [&](int i) INLINE {
    int page = first_page + i * WARPGROUPS;
    if (page >= pages) return;
    if (page / WAVE_SIZE != known) {
      known = page / WAVE_SIZE;
      int own = begin + known * WAVE_SIZE + lane_id();
      number = page_number(in, place_of(row_pages, own < last ? own : last - 1));
    }
    if (page % WAVE_SIZE == lane_id())
      copy_in(ring.slots[i % SLOTS], in.cache + slot_offset(number, INDEXER_PAGE_BYTES), ring.arrivals[i % SLOTS]);
  };
  // One page is enough while the queries are still made: what is signalled to this unit waits behind the pages, too.
  constexpr int EARLY = 1;
  auto order_pages = [&](int first, int end) INLINE {
#pragma unroll
    for (int i = first; i < end; ++i)
      if (wave == 0) order_page(i);
  };
  // A row's query is loaded while the row before is multiplied; what no op makes of the first one's, before the wait.
  NextQuery<Query, HEADS, THREADS> next;
  auto row_of = [&](int page) INLINE { return place_of(row_pages, begin + page).row; };
  if (pages > 0) next.load_early(in.query, known_rows, row_of, 0);
  if (pages > 0 && !workgroup.waits()) next.load(in.query, row_of, 0);
  order_pages(0, EARLY);
  workgroup.await_inputs();
  if (pages > 0 && workgroup.waits()) next.load(in.query, row_of, 0);
  order_pages(EARLY, SLOTS);

  int i = 0;
  for (int page = 0; page < pages;) {
    auto [row, index] = place_of(row_pages, begin + page);
    int end = row_pages.before[row + 1] - begin;
    end = end < pages ? end : pages;
    next.store_early(query);
    barrier();  // the row before may still be multiplied
    next.store(in.query, query);
    barrier();
    if (ROWS > 1 && end < pages) {
      next.load_early(in.query, known_rows, row_of, end);
      next.load(in.query, row_of, end);
    }
    // Of the lane's token in page 0, which may lie before the row's first one.
    int position = (index - page) * PAGE_TOKENS + token, left = in.lengths[row] - position;
    float *own_logits = logits + row_major_offset(row, position, int64(in.width) * PAGE_TOKENS);
    for (; first_page + i * WARPGROUPS < end; ++i) {
      const uint8 *slot = ring.slots[i % SLOTS];
      wait_for(ring.arrivals[i % SLOTS], i / SLOTS);
      LeftRows keys;
      load_left_rows(slot + preshuffled_page_key_offset(wave * TILE, 0), keys);
      float scale = *(const float *)(slot + page_scale_offset(token));
      warpgroup_barrier();  // the page is in registers
      if (wave == 0) order_page(i + SLOTS);
      WarpgroupSums<HEADS> products;
      multiply_rows(keys, query.rows, products);
      float score = weighted_sum<HEADS>(products, query.weights) * scale;
      int offset = (first_page + i * WARPGROUPS) * PAGE_TOKENS;
      if (stores_own_token() && offset < left) own_logits[offset] = score;
    }
    page = end;
  }
  warpgroup_barrier();
  if (wave == 0 && lane_id() < SLOTS) end(ring.arrivals[lane_id()]);
}
#endif
