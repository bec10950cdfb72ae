// Indexer scores. The rows' pages, one row after the other, are divided among the grid's workgroups: a long row is
// shared by many, however short the others are. Each chip's way to score a share is a header of its own.
// HEAD_TILES: tiles of 16 heads. ROWS: rows. WORKGROUPS: of the grid.
#include "indexer_warpgroups.h"
#include "indexer_waves.h"

constexpr int THREADS = 256;
using Shared = IndexerShared<PreparedQuery, HEAD_TILES, ROWS, THREADS>;

DEVICE void paged_mqa_logits(IndexerWorkgroup workgroup, Shared &shared, const uint8 *query, const float *weights,
                             const uint8 *cache, const int *block_table, const int *lengths, float *logits, int width,
                             int topk) {
  IndexerInputs<PreparedQuery> in = {{query, weights}, cache, block_table, lengths, width, topk};
  score_share<WORKGROUPS>(in, workgroup, shared, logits);
}
