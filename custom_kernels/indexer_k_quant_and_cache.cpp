// One row: quantise the indexer key and store it in its page. PRESHUFFLED and POWER_OF_TWO choose the page layout and
// the scale format.
#include "cpu_indexer.h"

extern "C" void indexer_k_quant_and_cache(BUFFER(k), BUFFER(cache), BUFFER(slot_mapping), int64 row, int64, int64) {
  float values[INDEXER_HEAD_DIM];
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i)
    values[i] = decode_bf16(POINTER(const uint16, k)[row * INDEXER_HEAD_DIM + i]);
  store_key<PRESHUFFLED, POWER_OF_TWO>(values, POINTER(uint8, cache), POINTER(const int64, slot_mapping)[row]);
}
