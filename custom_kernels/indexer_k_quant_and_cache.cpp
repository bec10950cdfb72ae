// One row: quantise the indexer key and store it, and its scale, in its page. PRESHUFFLED and POWER_OF_TWO choose
// the page layout and the scale format. A row with slot -1 stores nothing.
#include "cpu_indexer.h"

extern "C" void indexer_k_quant_and_cache(BUFFER(k), BUFFER(cache), BUFFER(slot_mapping), int64 row, int64, int64) {
  int64 slot = POINTER(const int64, slot_mapping)[row];
  if (slot < 0) return;
  float values[INDEXER_HEAD_DIM];
  uint8 codes[INDEXER_HEAD_DIM];
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i)
    values[i] = decode_bf16(POINTER(const uint16, k)[row * INDEXER_HEAD_DIM + i]);
  float scale = quantize_head<POWER_OF_TWO>(values, codes);
  uint8 *page = POINTER(uint8, cache) + slot / PAGE_TOKENS * INDEXER_PAGE_BYTES;
  int token = int(slot % PAGE_TOKENS);
  for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
    page[PRESHUFFLED ? preshuffled_page_key_offset(token, dim) : plain_page_key_offset(token, dim)] = codes[dim];
  *reinterpret_cast<float *>(page + page_scale_offset(token)) = scale;
}
