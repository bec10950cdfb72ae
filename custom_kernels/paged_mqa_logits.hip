// Indexer scores: a workgroup takes every SHARES-th page of a row, each of its waves 16 tokens of a page. A
// wave keeps the row's whole query in registers, and multiplies it with keys as they lie in the page.
#include "matrix.h"

constexpr int HEADS = HEAD_TILES * TILE;
constexpr int HEAD_FRAGMENTS = INDEXER_HEAD_DIM / FRAGMENT_COLUMNS;
constexpr int WAVES = PAGE_TOKENS / TILE;

// One row's query [HEADS, 128] and its head weights, as a wave holds them.
struct Query {
  Fragment heads[HEAD_TILES][HEAD_FRAGMENTS];
  float weights[HEAD_TILES][ACCUMULATOR_ROWS];
};

DEVICE Query load_query(const uint8 *query, const float *weights) {
  Query loaded;
#pragma unroll
  for (int tile = 0; tile < HEAD_TILES; ++tile) {
    const uint8 *rows[FRAGMENT_PARTS];
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      rows[part] = query + row_major_offset(tile * TILE + fragment_row(part), 0, INDEXER_HEAD_DIM);
#pragma unroll
    for (int i = 0; i < HEAD_FRAGMENTS; ++i) loaded.heads[tile][i] = load_row_fragment(rows, i);
#pragma unroll
    for (int r = 0; r < ACCUMULATOR_ROWS; ++r)
      loaded.weights[tile][r] = weights[tile * TILE + accumulator_row(r)];
  }
  return loaded;
}

// Scores of the 16 tokens from `first_token` of `page`; only the first `valid` of them are stored.
DEVICE void score_tokens(const Query &query, const uint8 *page, int first_token, float *logits, int valid) {
  Fragment keys[HEAD_FRAGMENTS];
#pragma unroll
  for (int i = 0; i < HEAD_FRAGMENTS; ++i)
    keys[i] = load_tiled_fragment(page + preshuffled_page_key_offset(first_token, 0), i);
  float key_scale[ACCUMULATOR_COLUMNS], scores[ACCUMULATOR_COLUMNS] = {};
#pragma unroll
  for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
    key_scale[c] = *(const float *)(page + page_scale_offset(first_token + accumulator_column(c)));
#pragma unroll
  for (int tile = 0; tile < HEAD_TILES; ++tile) {
    Accumulator products;
#pragma unroll
    for (int i = 0; i < HEAD_FRAGMENTS; ++i) multiply(query.heads[tile][i], keys[i], products);
#pragma unroll
    for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        float product = products.element[c][r] * key_scale[c];
        scores[c] += query.weights[tile][r] * (product < 0.0f ? 0.0f : product);
      }
  }
#pragma unroll
  for (int c = 0; c < ACCUMULATOR_COLUMNS; ++c) {
    float score = sum_over_accumulator_rows(scores[c]);
    int token = accumulator_column(c);
    if (accumulator_row(0) == 0 && token < valid) logits[token] = score;
  }
}

// Share `share` of row `row`: its pages share, share + SHARES, ... below the row's length.
DEVICE void score_share(const uint8 *query, const float *weights, const uint8 *cache, const int *block_table,
                        const int *lengths, float *logits, int width, int row, int share) {
  int length = lengths[row];
  if (share * PAGE_TOKENS >= length) return;
  const int *pages = block_table + row_major_offset(row, 0, width);
  float *row_logits = logits + row_major_offset(row, 0, int64(width) * PAGE_TOKENS);
  Query loaded = load_query(query + row_major_offset(row, 0, HEADS * INDEXER_HEAD_DIM),
                            weights + row_major_offset(row, 0, HEADS));
  int in_page = uniform_wave_id() * TILE;
  for (int page = share; page * PAGE_TOKENS + in_page < length; page += SHARES) {
    int position = page * PAGE_TOKENS + in_page;
    score_tokens(loaded, cache + slot_offset(pages[page], INDEXER_PAGE_BYTES), in_page, row_logits + position,
                 length - position);
  }
}

DEVICE void paged_mqa_logits(Workgroup workgroup, const uint8 *query, const float *weights, const uint8 *cache,
                             const int *block_table, const int *lengths, float *logits, int width) {
  score_share(query, weights, cache, block_table, lengths, logits, width, workgroup.y, workgroup.x);
}
