// Quantises the indexer's keys and stores them in the paged cache; 16 lanes per row, 16 rows per workgroup.
// PRESHUFFLED: the page's key layout. POWER_OF_TWO: scales are rounded up to one.
#include "bf16.h"
#include "indexer_page.h"

constexpr int THREADS = 256;
constexpr int ROWS = THREADS / HEAD_LANES;

DEVICE void indexer_k_quant_and_cache(Workgroup workgroup, const bf16 *k, uint8 *cache, const int64 *slot_mapping,
                                      int rows) {
  int row = workgroup.x * ROWS + thread_id() / HEAD_LANES;
  int dim = thread_id() % HEAD_LANES * HEAD_COLUMNS_PER_LANE;
  int read = row < rows ? row : rows - 1;  // no branch around the loads
  int64 slot = slot_mapping[read];
  float values[8];
  load_bf16x8(k + row_major_offset(read, dim, INDEXER_HEAD_DIM), values);
  store_key<PRESHUFFLED, POWER_OF_TWO>(values, cache, row < rows ? slot : -1, dim);
}
