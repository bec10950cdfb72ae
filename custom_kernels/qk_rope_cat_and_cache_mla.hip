// Rotates, joins, casts and stores one head of the attention query, or the key of one row, per workgroup.
// ROPE_HALVES: how the rotated columns are paired.
#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "rope.h"

constexpr int THREADS = 128;
constexpr int VECTOR = 8;

// `target` receives `latent`, then `rope` rotated, all as FP8. Eight columns per lane.
DEVICE void join_and_cast(const bf16 *latent, const bf16 *rope, const float *table_row, uint8 *target,
                          int latent_dim, int rope_dim) {
  for (int first = 0; first < latent_dim + rope_dim; first += THREADS * VECTOR) {
    int column = first + thread_id() * VECTOR;
    int dim = column - latent_dim;
    float values[VECTOR] = {};
    if (dim < rope_dim) load_bf16x8(dim < 0 ? latent + column : rope + dim, values);
    rotate<ROPE_HALVES>(values, dim, rope_dim, table_row);
#pragma unroll
    for (int i = 0; i < VECTOR; ++i) values[i] = round_to_bf16(values[i]);
    if (dim >= rope_dim) continue;
    *(uint32x2 *)(target + column) = {to_fp8x4(values[0], values[1], values[2], values[3]),
                                      to_fp8x4(values[4], values[5], values[6], values[7])};
  }
}

// `head` counts the query's heads; the one after the last is the row's key.
DEVICE void store_head(const bf16 *q, const bf16 *q_absorbed, const bf16 *latent, const bf16 *qkv_a,
                       const float *rope_table, const int64 *positions, uint8 *cache,
                       const int64 *slot_mapping, uint8 *q_cat, int heads, int head_dim, int qkv_a_dim,
                       int latent_dim, int rope_dim, int row, int head) {
  const float *table_row = rope_table + positions[row] * rope_dim;
  int width = latent_dim + rope_dim;
  if (head < heads) {
    int64 index = row_major_offset(row, head, heads);
    join_and_cast(q_absorbed + index * latent_dim, q + (index + 1) * head_dim - rope_dim, table_row,
                  q_cat + index * width, latent_dim, rope_dim);
    return;
  }
  int64 slot = slot_mapping[row];
  if (slot < 0) return;
  join_and_cast(latent + int64(row) * latent_dim, qkv_a + int64(row + 1) * qkv_a_dim - rope_dim, table_row,
                cache + slot * width, latent_dim, rope_dim);
}

DEVICE void qk_rope_cat_and_cache_mla(Workgroup workgroup, const bf16 *q, const bf16 *q_absorbed, const bf16 *latent,
                                      const bf16 *qkv_a, const float *rope_table, const int64 *positions,
                                      uint8 *cache, const int64 *slot_mapping, uint8 *q_cat, int heads, int head_dim,
                                      int qkv_a_dim, int latent_dim, int rope_dim) {
  store_head(q, q_absorbed, latent, qkv_a, rope_table, positions, cache, slot_mapping, q_cat, heads, head_dim,
             qkv_a_dim, latent_dim, rope_dim, workgroup.y, workgroup.x);
}
