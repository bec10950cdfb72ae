// Index maps of the stored tensors: the C twin of layouts.py (a test compares the two over whole ranges).
#pragma once

#include "compiler.h"

constexpr int GROUP = 128;
constexpr int TILE = 16;
constexpr int PAGE_TOKENS = 64;
constexpr int INDEXER_HEAD_DIM = 128;

static constexpr int64 row_major_offset(int64 row, int64 column, int64 columns) {
  return row * columns + column;
}

// Tiles of 16 x 16 elements, each contiguous, along the columns first.
static constexpr int64 tiled_16x16_offset(int64 row, int64 column, int64 columns) {
  return row / TILE * (TILE * columns) + column / TILE * (TILE * TILE) + row % TILE * TILE + column % TILE;
}

// Group scales of an activation, [rows, groups] and [groups, rows].
static constexpr int64 row_major_scale_offset(int64 row, int64 group, int64 groups) {
  return row * groups + group;
}
static constexpr int64 group_major_scale_offset(int64 row, int64 group, int64 rows) {
  return group * rows + row;
}

// Page of the indexer's key cache, one byte per key element: keys first, then one float32 scale per token.
constexpr int INDEXER_PAGE_BYTES = PAGE_TOKENS * (INDEXER_HEAD_DIM + 4);

static constexpr int plain_page_key_offset(int token, int dim) {
  return int(row_major_offset(token, dim, INDEXER_HEAD_DIM));
}
static constexpr int preshuffled_page_key_offset(int token, int dim) {
  return int(tiled_16x16_offset(token, dim, INDEXER_HEAD_DIM));
}
static constexpr int page_scale_offset(int token) { return PAGE_TOKENS * INDEXER_HEAD_DIM + 4 * token; }

// First byte of an element of a cache of `row_bytes` per token: 64-bit, as pools exceed 2 GiB.
static constexpr int64 slot_offset(int slot, int row_bytes) { return int64(slot) * row_bytes; }
