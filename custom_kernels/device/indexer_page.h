// Where a key element lies in its page, in the page layout that a kernel is compiled for, and how a key is stored.
#pragma once

#include "indexer_quant.h"
#include "layouts.h"

template <bool PRESHUFFLED> DEVICE int page_key_offset(int token, int dim) {
  return PRESHUFFLED ? preshuffled_page_key_offset(token, dim) : plain_page_key_offset(token, dim);
}

// Quantises the key of which this lane holds 8 elements from `dim` on, and stores it with its scale; slot -1 stores
// nothing. All lanes of the wave must call.
template <bool PRESHUFFLED, bool POWER_OF_TWO>
DEVICE void store_key(const float (&values)[8], uint8 *cache, int64 slot, int dim) {
  uint32x2 codes;
  float scale = quantize_head<POWER_OF_TWO>(values, FP8_MAXIMUM, codes);
  if (slot < 0) return;
  uint8 *page = cache + slot / PAGE_TOKENS * INDEXER_PAGE_BYTES;
  int token = slot % PAGE_TOKENS;
  *(uint32x2 *)(page + page_key_offset<PRESHUFFLED>(token, dim)) = codes;
  if (dim == 0) *(float *)(page + page_scale_offset(token)) = scale;
}
