// Indexer scores of one row against one of its pages.
#include "cpu_indexer_scores.h"

extern "C" void paged_mqa_logits(BUFFER(query), BUFFER(weights), BUFFER(cache), BUFFER(block_table), BUFFER(lengths),
                                 BUFFER(logits), int64 width, int64 heads, int64 topk, int64 page_index, int64 row,
                                 int64) {
  auto load_head = [&](int64 head, uint8 *codes) {
    for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
      codes[dim] = POINTER(const uint8, query)[head * INDEXER_HEAD_DIM + dim];
    return POINTER(const float, weights)[head];
  };
  score_page({row, page_index, width}, POINTER(const uint8, cache), POINTER(const int, block_table),
             POINTER(const int, lengths), POINTER(float, logits), heads, topk, load_head);
}
