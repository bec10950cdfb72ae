// Indexer scores of one row against one of its pages (preshuffled); positions past the length, and rows
// of at most `topk` tokens, are not written.
#include "cpu.h"

extern "C" void paged_mqa_logits(BUFFER(query), BUFFER(weights), BUFFER(cache), BUFFER(block_table), BUFFER(lengths),
                                 BUFFER(logits), int64 width, int64 heads, int64 topk, int64 page_index, int64 row,
                                 int64) {
  int64 first = page_index * PAGE_TOKENS, length = POINTER(const int, lengths)[row];
  if (first >= length || length <= topk) return;
  int64 page = POINTER(const int, block_table)[row * width + page_index];
  const uint8 *keys = POINTER(const uint8, cache) + page * INDEXER_PAGE_BYTES;
  const uint8 *scale_bytes = keys + page_scale_offset(0);
  int tokens = int(length - first < PAGE_TOKENS ? length - first : PAGE_TOKENS);

  float decoded[INDEXER_HEAD_DIM][PAGE_TOKENS];  // transposed: the tokens are the vector
  for (int token = 0; token < PAGE_TOKENS; ++token)
    for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
      decoded[dim][token] = decode_fp8(keys[preshuffled_page_key_offset(token, dim)]);

  float scores[PAGE_TOKENS];
  for (int token = 0; token < PAGE_TOKENS; ++token) scores[token] = 0;
  for (int64 head = 0; head < heads; ++head) {
    float input[INDEXER_HEAD_DIM], products[PAGE_TOKENS];
    decode_fp8(POINTER(const uint8, query) + (row * heads + head) * INDEXER_HEAD_DIM, input, INDEXER_HEAD_DIM);
    for (int token = 0; token < PAGE_TOKENS; ++token) products[token] = 0;
    for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
      for (int token = 0; token < PAGE_TOKENS; ++token) products[token] += input[dim] * decoded[dim][token];
    float gate = POINTER(const float, weights)[row * heads + head];
    for (int token = 0; token < PAGE_TOKENS; ++token) {
      float scaled = products[token] * reinterpret_cast<const float *>(scale_bytes)[token];
      scores[token] += gate * (scaled > 0 ? scaled : scaled != scaled ? scaled : 0);
    }
  }
  float *output = POINTER(float, logits) + row * width * PAGE_TOKENS + first;
  for (int token = 0; token < tokens; ++token) output[token] = scores[token];
}
