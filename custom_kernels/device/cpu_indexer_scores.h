// Indexer scores of one row against one of its pages (preshuffled), on the CPU.
#pragma once

#include "cpu.h"

// Which page of which row a call scores.
struct PageOfRow {
  int64 row, index, width;
};

// tell_head(head, codes) gives the codes of one of the `heads` heads, counted through all rows, and returns its weight.
// Positions past the length, and rows of at most `topk` tokens, are not written.
template <typename TellHead>
DEVICE void score_page(PageOfRow page, const uint8 *cache, const int *block_table, const int *lengths, float *logits,
                       int64 heads, int64 topk, TellHead tell_head) {
  int64 first = page.index * PAGE_TOKENS, length = lengths[page.row];
  if (first >= length || length <= topk) return;
  const uint8 *keys = cache + block_table[page.row * page.width + page.index] * int64(INDEXER_PAGE_BYTES);
  const uint8 *scale_bytes = keys + page_scale_offset(0);
  int tokens = int(length - first < PAGE_TOKENS ? length - first : PAGE_TOKENS);

  float decoded[INDEXER_HEAD_DIM][PAGE_TOKENS];  // transposed: the tokens are the vector
  for (int token = 0; token < PAGE_TOKENS; ++token)
    for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
      decoded[dim][token] = decode_fp8(keys[preshuffled_page_key_offset(token, dim)]);

  float scores[PAGE_TOKENS];
  for (int token = 0; token < PAGE_TOKENS; ++token) scores[token] = 0;
  for (int64 head = 0; head < heads; ++head) {
    uint8 codes[INDEXER_HEAD_DIM];
    float weight = tell_head(page.row * heads + head, codes);
    float input[INDEXER_HEAD_DIM], products[PAGE_TOKENS];
    decode_fp8(codes, input, INDEXER_HEAD_DIM);
    for (int token = 0; token < PAGE_TOKENS; ++token) products[token] = 0;
    for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
      for (int token = 0; token < PAGE_TOKENS; ++token) products[token] += input[dim] * decoded[dim][token];
    for (int token = 0; token < PAGE_TOKENS; ++token) {
      float scaled = products[token] * reinterpret_cast<const float *>(scale_bytes)[token];
      scores[token] += weight * (scaled > 0 ? scaled : scaled != scaled ? scaled : 0);
    }
  }
  float *output = logits + page.row * page.width * PAGE_TOKENS + first;
  for (int token = 0; token < tokens; ++token) output[token] = scores[token];
}
