// Indexer scores of queries that every workgroup makes for itself, for the rows whose pages it scores. The constants are
// those of paged_mqa_logits.hip and indexer_q_prepare.hip.
#include "indexer_warpgroups.h"
#include "indexer_waves.h"

constexpr int THREADS = 256;
using Query = RawQuery<ROPE_HALVES>;
using Shared = IndexerShared<Query, HEAD_TILES, ROWS, THREADS>;

DEVICE void indexer_q_prepare_and_logits(IndexerWorkgroup workgroup, Shared &shared, const bf16 *q, const float *gates,
                                         const float *rope_table, const int64 *positions, const uint8 *cache,
                                         const int *block_table, const int *lengths, float *logits, int gate_scale,
                                         int width, int topk) {
  Query query = {q, gates, rope_table, positions, __builtin_bit_cast(float, gate_scale)};
  IndexerInputs<Query> in = {query, cache, block_table, lengths, width, topk};
  score_share<WORKGROUPS>(in, workgroup, shared, logits);
}
