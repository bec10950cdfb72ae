// Indexer scores. The rows' pages, one row after the other, are dealt out evenly to all waves of the grid, in tiles of
// 16 tokens: a long row is shared by many waves, however short the others are. A wave keeps its row's whole query in
// registers, and as many tiles of keys in flight as registers allow.
// HEAD_TILES: tiles of 16 heads. ROWS: rows. WORKGROUPS: of the grid.
#include "indexer_matrix.h"
#include "reduce.h"
#include "uniform.h"

constexpr int THREADS = 256;
constexpr int WAVES = THREADS / WAVE_SIZE;
constexpr int HEADS = HEAD_TILES * TILE;
constexpr int PAGE_TILES = PAGE_TOKENS / TILE;
// Tiles in flight: a page's, or half of it where a lane's registers hold more of the query than that.
constexpr int STEP = WAVE_SIZE == 32 && HEAD_TILES > 2 ? PAGE_TILES / 2 : PAGE_TILES;

struct Shared {
  int page_starts[ROWS + 1];  // how many pages lie before each row's
  OfWaves<THREADS, int> of_wave;
};

struct Inputs {
  const uint8 *query;
  const float *weights;
  const uint8 *cache;
  const int *block_table, *lengths;
  int width, topk;
};

// One row's query [HEADS, 128] and its head weights, as a wave holds them.
struct Query {
  QueryFragment heads[HEAD_FRAGMENTS][HEAD_TILES];
  float weights[HEAD_TILES][ACCUMULATOR_ROWS];
};

DEVICE void load_query(const Inputs &in, int row, Query &loaded) {
  const uint8 *query = in.query + row_major_offset(row, 0, HEADS * INDEXER_HEAD_DIM);
  const float *weights = in.weights + row_major_offset(row, 0, HEADS);
  Fragment fragments[HEAD_FRAGMENTS][HEAD_TILES];
#pragma unroll
  for (int tile = 0; tile < HEAD_TILES; ++tile) {
    const uint8 *rows[FRAGMENT_PARTS];
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      rows[part] = query + row_major_offset(tile * TILE + fragment_row(part), 0, INDEXER_HEAD_DIM);
#pragma unroll
    for (int i = 0; i < HEAD_FRAGMENTS; ++i) fragments[i][tile] = load_row_fragment(rows, i);
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r) loaded.weights[tile][r] = weights[tile * TILE + accumulator_row(r)];
  }
#pragma unroll
  for (int i = 0; i < HEAD_FRAGMENTS; ++i)
#pragma unroll
    for (int tile = 0; tile < HEAD_TILES; ++tile) loaded.heads[i][tile] = query_fragment(fragments[i][tile]);
}

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

// Scores of a tile's tokens; only the first `valid` of them are stored. Scales are not negative, so they may be
// applied after the positive part has been taken.
DEVICE void score_tile(const Query &query, const KeyTile &tile, float *logits, int valid) {
  Accumulator products[HEAD_TILES];
#pragma unroll
  for (int i = 0; i < HEAD_FRAGMENTS; ++i) multiply_heads(query.heads[i], tile.keys[i], products);
  float scores[ACCUMULATOR_COLUMNS] = {};
#pragma unroll
  for (int head_tile = 0; head_tile < HEAD_TILES; ++head_tile)
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
#pragma unroll
      for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
        scores[c] += query.weights[head_tile][r] * positive_part(products[head_tile].element[c][r]);
  float score = sum_of_own_token(scores) * tile.scale;
  if (stores_own_token() && own_token() < valid) logits[own_token()] = score;
}

// Fills `page_starts`; the number of all pages. Rows of at most topk tokens have none.
DEVICE int count_pages(const Inputs &in, Shared &shared) {
  int before = 0;
  for (int first = 0; first < ROWS; first += THREADS) {
    int row = first + thread_id();
    int length = row < ROWS ? in.lengths[row] : 0;
    int pages = length > in.topk ? divide_up(length, PAGE_TOKENS) : 0, total;
    int upto = inclusive_sum_of_workgroup<THREADS>(pages, total, shared.of_wave);
    if (row < ROWS) shared.page_starts[row + 1] = before + upto;
    before += total;
  }
  if (thread_id() == 0) shared.page_starts[0] = 0;
  barrier();
  return uniform(before);
}

// What a lane knows of one of the next pages: its row, its place in the row, its number in the pool, and how many
// tokens the row has from its start.
struct PagePlace {
  int row, index, number, tokens;
};

DEVICE PagePlace place_of(const Inputs &in, const Shared &shared, int page) {
  constexpr int HALF = 1 << (31 - __builtin_clz(ROWS));
  PagePlace place = {};
#pragma unroll
  for (int step = HALF; step > 0; step /= 2)
    if (place.row + step < ROWS && shared.page_starts[place.row + step] <= page) place.row += step;
  place.index = page - shared.page_starts[place.row];
  place.number = in.block_table[row_major_offset(place.row, place.index, in.width)];
  place.tokens = in.lengths[place.row] - place.index * PAGE_TOKENS;
  return place;
}

// STEP tiles of one page: where they lie, and how many tokens are to be scored from the first one on.
struct Step {
  int row, position, number, tokens;
};

// The step at tile `first`, in the page that lane `lane` knows; nothing is scored from tile `end` on.
DEVICE Step step_at(const PagePlace &place, int lane, int first, int end) {
  int in_page = first % PAGE_TILES * TILE, last = WAVE_SIZE - 1;
  lane = lane < last ? lane : last;
  int row = uniform_read(place.row, lane), position = uniform_read(place.index, lane) * PAGE_TOKENS + in_page;
  int tokens = uniform_read(place.tokens, lane) - in_page, left = (end - first) * TILE;
  return {row, position, uniform_read(place.number, lane), tokens < left ? tokens : left};
}

// Tiles `first` to `end` of the pages from `first_page` on, of which each lane knows one.
DEVICE void score_tiles(const Inputs &in, float *logits, const PagePlace &place, int first_page, int first, int end) {
  auto load = [&](const Step &step, int i, KeyTile &keys) {
    const uint8 *page = in.cache + slot_offset(step.number, INDEXER_PAGE_BYTES);
    if (i * TILE < step.tokens) load_key_tile(page, step.position % PAGE_TOKENS + i * TILE, keys);
  };
  int tile = first / STEP * STEP, skipped = first - tile;
  Step step = step_at(place, tile / PAGE_TILES - first_page, tile, end);
  KeyTile keys[STEP];
#pragma unroll
  for (int i = 0; i < STEP; ++i)
    if (i >= skipped) load(step, i, keys[i]);
  Query query;
  int query_row = -1;
  for (; tile < end; tile += STEP) {
    Step next = step_at(place, (tile + STEP) / PAGE_TILES - first_page, tile + STEP, end);
    if (step.row != query_row) load_query(in, step.row, query);
    query_row = step.row;
    float *step_logits = logits + row_major_offset(step.row, step.position, int64(in.width) * PAGE_TOKENS);
#pragma unroll
    for (int i = 0; i < STEP; ++i) {
      if (i >= skipped && i * TILE < step.tokens)
        score_tile(query, keys[i], step_logits + i * TILE, step.tokens - i * TILE);
      load(next, i, keys[i]);
    }
    step = next;
    skipped = 0;
  }
}

DEVICE void paged_mqa_logits(Workgroup workgroup, Shared &shared, const uint8 *query, const float *weights,
                             const uint8 *cache, const int *block_table, const int *lengths, float *logits, int width,
                             int topk) {
  Inputs in = {query, weights, cache, block_table, lengths, width, topk};
  int pages = count_pages(in, shared);
  int tiles = pages * PAGE_TILES, wave = uniform_wave_id() * WORKGROUPS + workgroup.x;
  int least = tiles / (WORKGROUPS * WAVES), longer = tiles % (WORKGROUPS * WAVES);
  int first = wave * least + (wave < longer ? wave : longer);
  int end = first + least + (wave < longer);
  while (first < end) {
    int first_page = first / PAGE_TILES, page = first_page + lane_id();
    PagePlace place = place_of(in, shared, page < pages ? page : pages - 1);
    int last = (first_page + WAVE_SIZE) * PAGE_TILES;
    score_tiles(in, logits, place, first_page, first, last < end ? last : end);
    first = last;
  }
}
