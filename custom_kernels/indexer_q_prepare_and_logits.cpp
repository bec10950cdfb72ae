// Indexer scores of one row against one of its pages, for which the row's query is made.
#include "cpu_indexer.h"
#include "cpu_indexer_scores.h"

extern "C" void indexer_q_prepare_and_logits(BUFFER(q), BUFFER(gates), BUFFER(rope_table), BUFFER(positions),
                                             BUFFER(cache), BUFFER(block_table), BUFFER(lengths), BUFFER(logits),
                                             int64 gate_factor_bits, int64 width, int64 heads, int64 topk,
                                             int64 page_index, int64 row, int64) {
  const float *rope_row = POINTER(const float, rope_table) + POINTER(const int64, positions)[row] * ROPE_DIM;
  auto make_head = [&](int64 head, uint8 *codes) {
    const uint16 *first = POINTER(const uint16, q) + head * INDEXER_HEAD_DIM;
    float scale = prepare_head<ROPE_DIM, !ROPE_HALVES>(first, rope_row, codes);
    return POINTER(const float, gates)[head] * bits_to_float(uint32(gate_factor_bits)) * scale;
  };
  score_page({row, page_index, width}, POINTER(const uint8, cache), POINTER(const int, block_table),
             POINTER(const int, lengths), POINTER(float, logits), heads, topk, make_head);
}
