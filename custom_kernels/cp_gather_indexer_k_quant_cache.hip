// Gathers paged indexer keys and scales into rows; 8 lanes of 16 bytes per row, 32 rows per workgroup.
// PRESHUFFLED: the page's key layout.
#include "indexer_page.h"

constexpr int THREADS = 256;
constexpr int VECTOR = 16;
constexpr int ROW_LANES = INDEXER_HEAD_DIM / VECTOR;
constexpr int ROWS = THREADS / ROW_LANES;

// The sequence that holds `row`: the last one that starts at or before it. Empty sequences hold none.
DEVICE int owner_of(int row, const int *cumulative_lengths, int sequences) {
  int first = 0, end = sequences;
  while (end - first > 1) {
    int middle = (first + end) / 2;
    if (cumulative_lengths[middle] <= row) first = middle;
    else end = middle;
  }
  return first;
}

DEVICE void gather_rows(const uint8 *cache, const int *block_table, const int *cumulative_lengths,
                        uint8 *keys, float *scales, int total, int sequences, int table_width, int tile) {
  int row = tile * ROWS + thread_id() / ROW_LANES;
  int dim = thread_id() % ROW_LANES * VECTOR;
  if (row >= total) return;
  uint32x4 key = {};
  float scale = 0;
  if (row < cumulative_lengths[sequences]) {
    int owner = owner_of(row, cumulative_lengths, sequences);
    int position = row - cumulative_lengths[owner];
    int64 page = block_table[int64(owner) * uint32(table_width) + position / PAGE_TOKENS];
    int token = position % PAGE_TOKENS;
    const uint8 *page_bytes = cache + page * INDEXER_PAGE_BYTES;
    key = *(const uint32x4 *)(page_bytes + page_key_offset<PRESHUFFLED>(token, dim));
    scale = *(const float *)(page_bytes + page_scale_offset(token));
  }
  *(uint32x4 *)(keys + row_major_offset(row, dim, INDEXER_HEAD_DIM)) = key;
  if (dim == 0) scales[row] = scale;
}

DEVICE void cp_gather_indexer_k_quant_cache(Workgroup workgroup, const uint8 *cache, const int *block_table,
                                            const int *cumulative_lengths, uint8 *keys, float *scales, int total,
                                            int sequences, int table_width) {
  gather_rows(cache, block_table, cumulative_lengths, keys, scales, total, sequences, table_width,
              workgroup.x);
}
