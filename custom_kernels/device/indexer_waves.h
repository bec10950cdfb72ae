// Indexer scores by waves that work each for itself (AMD). Tiles of 16 tokens are dealt out evenly to all waves of the
// grid. A wave keeps its row's whole query in registers, and the next page's keys on their way into others.
#pragma once

#include "indexer_pages.h"
#include "indexer_wave_query.h"
#include "matrix.h"

#if defined(__AMDGCN__)
constexpr int HEAD_FRAGMENTS = INDEXER_HEAD_DIM / FRAGMENT_COLUMNS;
constexpr int PAGE_TILES = PAGE_TOKENS / TILE;

// One row's query [heads, 128] and its head weights, as a wave holds them.
template <int HEAD_TILES> struct HeldQuery {
  Fragment heads[HEAD_FRAGMENTS][HEAD_TILES];
  float weights[HEAD_TILES][ACCUMULATOR_ROWS];
};

template <typename Query, int HEAD_TILES>
DEVICE void load_query(const Query &query, int row, TilePlace<Query> &place, HeldQuery<HEAD_TILES> &loaded) {
#pragma unroll
  for (int tile = 0; tile < HEAD_TILES; ++tile) {
    auto [codes, weights] = heads_of_tile(query, row, tile, HEAD_TILES, place);
    const uint8 *rows[FRAGMENT_PARTS];
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      rows[part] = codes + row_major_offset(fragment_row(part), 0, INDEXER_HEAD_DIM);
#pragma unroll
    for (int i = 0; i < HEAD_FRAGMENTS; ++i) loaded.heads[i][tile] = load_row_fragment(rows, i);
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r) loaded.weights[tile][r] = weights[accumulator_row(r)];
  }
}

// The token of a tile whose score this lane gets; several lanes get the same one, and the first of them stores it.
DEVICE int own_token() { return accumulator_column(0); }
DEVICE bool stores_own_token() { return lane_id() < TILE; }

// Keys of 16 tokens of a page, and the scale of this lane's own token.
struct KeyTile {
  Fragment keys[HEAD_FRAGMENTS];
  float scale;
};

DEVICE void load_key_tile(const uint8 *page, int first_token, KeyTile &tile) {
#pragma unroll
  for (int i = 0; i < HEAD_FRAGMENTS; ++i)
    tile.keys[i] = load_tiled_fragment(page + preshuffled_page_key_offset(first_token, 0), i);
  tile.scale = *(const float *)(page + page_scale_offset(first_token + own_token()));
}

// max(0, value); NaN stays.
DEVICE float positive_part(float value) { return value < 0.0f ? 0.0f : value; }

// Scores of a tile's tokens; only the first `valid` of them are stored. Scales are not negative, so they may be
// applied after the positive part has been taken.
template <int HEAD_TILES>
DEVICE void score_tile(const HeldQuery<HEAD_TILES> &query, const KeyTile &tile, float *logits, int valid) {
  Accumulator products[HEAD_TILES];
#pragma unroll
  for (int i = 0; i < HEAD_FRAGMENTS; ++i)
#pragma unroll
    for (int head_tile = 0; head_tile < HEAD_TILES; ++head_tile)
      multiply(query.heads[i][head_tile], tile.keys[i], products[head_tile]);
  float sum = 0;
#pragma unroll
  for (int head_tile = 0; head_tile < HEAD_TILES; ++head_tile)
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
      sum += query.weights[head_tile][r] * positive_part(products[head_tile].element[0][r]);
  float score = sum_over_accumulator_rows(sum) * tile.scale;
  if (stores_own_token() && own_token() < valid) logits[own_token()] = score;
}

// What a lane knows of one of the next pages: its place, its number in the pool, and how many tokens the row has from
// its start.
struct KnownPage {
  PagePlace place;
  int number, tokens;
};

// A page that is about to be scored: where it lies, and how many tokens are to be scored from its first one on.
struct PageToScore {
  int row, position, number, tokens;
};

// The page that lane `lane` knows, which starts with tile `first`; nothing is scored from tile `end` on.
DEVICE PageToScore read_page(const KnownPage &known, int lane, int first, int end) {
  constexpr int LAST = WAVE_SIZE - 1;
  lane = lane < LAST ? lane : LAST;
  int tokens = uniform_read(known.tokens, lane), left = (end - first) * TILE;
  return {uniform_read(known.place.row, lane), uniform_read(known.place.index, lane) * PAGE_TOKENS,
          uniform_read(known.number, lane), tokens < left ? tokens : left};
}

// Tiles `first` to `end` of the pages from `first_page` on, of which each lane knows one.
template <int HEAD_TILES, typename Query>
DEVICE void score_tiles(const IndexerInputs<Query> &in, TilePlace<Query> &place, float *logits, const KnownPage &known,
                        int first_page, int first, int end) {
  auto load = [&](const PageToScore &page, int i, KeyTile &keys) {
    if (i * TILE < page.tokens) load_key_tile(in.cache + slot_offset(page.number, INDEXER_PAGE_BYTES), i * TILE, keys);
  };
  int tile = first / PAGE_TILES * PAGE_TILES, skipped = first - tile;
  PageToScore page = read_page(known, tile / PAGE_TILES - first_page, tile, end);
  KeyTile keys[PAGE_TILES];
#pragma unroll
  for (int i = 0; i < PAGE_TILES; ++i)
    if (i >= skipped) load(page, i, keys[i]);
  HeldQuery<HEAD_TILES> query;
  int query_row = -1;
  for (; tile < end; tile += PAGE_TILES) {
    PageToScore next = read_page(known, tile / PAGE_TILES + 1 - first_page, tile + PAGE_TILES, end);
    if (page.row != query_row) load_query(in.query, page.row, place, query);
    query_row = page.row;
    float *page_logits = logits + row_major_offset(page.row, page.position, int64(in.width) * PAGE_TOKENS);
#pragma unroll
    for (int i = 0; i < PAGE_TILES; ++i) {
      if (i >= skipped && i * TILE < page.tokens)
        score_tile(query, keys[i], page_logits + i * TILE, page.tokens - i * TILE);
      load(next, i, keys[i]);
    }
    page = next;
    skipped = 0;
  }
}

template <typename Query, int HEAD_TILES, int ROWS, int THREADS> struct IndexerShared {
  RowPages<ROWS, 0> pages;
  [[no_unique_address]] TilePlaces<Query, THREADS / WAVE_SIZE> places;
};

using IndexerWorkgroup = Workgroup;

// The share of `workgroup` of WORKGROUPS.
template <int WORKGROUPS, typename Query, int HEAD_TILES, int ROWS, int THREADS>
DEVICE void score_share(const IndexerInputs<Query> &in, IndexerWorkgroup workgroup,
                        IndexerShared<Query, HEAD_TILES, ROWS, THREADS> &shared, float *logits) {
  constexpr int WAVES = THREADS / WAVE_SIZE;
  int pages = count_pages(in, shared.pages, [](int) {});
  Share tiles = share_of<WORKGROUPS * WAVES>(pages * PAGE_TILES, uniform_wave_id() * WORKGROUPS + workgroup.x);
  while (tiles.first < tiles.end) {
    int first_page = tiles.first / PAGE_TILES, page = first_page + lane_id();
    PagePlace place = place_of(shared.pages, page < pages ? page : pages - 1);
    KnownPage known = {place, page_number(in, place), in.lengths[place.row] - place.index * PAGE_TOKENS};
    int last = (first_page + WAVE_SIZE) * PAGE_TILES;
    score_tiles<HEAD_TILES>(in, shared.places.own(), logits, known, first_page, tiles.first,
                            last < tiles.end ? last : tiles.end);
    tiles.first = last;
  }
}
#endif
