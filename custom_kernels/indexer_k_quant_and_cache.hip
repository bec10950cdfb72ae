// Quantises the indexer's keys and stores them in the paged cache; 16 lanes per row, four rows per workgroup.
// PRESHUFFLED: the page's key layout. POWER_OF_TWO: scales are rounded up to one.
#include "bf16.h"
#include "indexer_page.h"
#include "indexer_quant.h"

constexpr int THREADS = 64;
constexpr int ROWS = THREADS / HEAD_LANES;

DEVICE void store_keys(const bf16 *k, uint8 *cache, const int64 *slot_mapping, int rows, int tile) {
  int row = tile * ROWS + thread_id() / HEAD_LANES;
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  int64 slot = row < rows ? slot_mapping[row] : -1;
  float values[8] = {};
  if (slot >= 0) load_bf16x8(k + row_major_offset(row, dim, INDEXER_HEAD_DIM), values);
  uint32x2 codes;
  float scale = quantize_head<POWER_OF_TWO>(values, FP8_MAXIMUM, codes);
  if (slot < 0) return;
  uint8 *page = cache + slot / PAGE_TOKENS * INDEXER_PAGE_BYTES;
  int token = slot % PAGE_TOKENS;
  *(uint32x2 *)(page + page_key_offset<PRESHUFFLED>(token, dim)) = codes;
  if (dim == 0) *(float *)(page + page_scale_offset(token)) = scale;
}

DEVICE void indexer_k_quant_and_cache(Workgroup workgroup, const bf16 *k, uint8 *cache, const int64 *slot_mapping,
                                      int rows) {
  store_keys(k, cache, slot_mapping, rows, workgroup.x);
}
