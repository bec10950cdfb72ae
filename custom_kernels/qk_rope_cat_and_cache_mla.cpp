// One row: rotate and join the absorbed query's heads, rotate and join the key, store the key in its slot.
// LATENT, ROPE_DIM and ROPE_HALVES are compile-time constants. A row with slot -1 stores nothing.
#include "cpu_indexer.h"

constexpr int WIDTH = LATENT + ROPE_DIM;

// Codes of a latent part and a part that is rotated and rounded first.
static void join(const uint16 *latent, const uint16 *rope, const float *rope_row, uint8 *codes) {
  float turned[ROPE_DIM];
  for (int i = 0; i < LATENT; ++i) codes[i] = encode_fp8(decode_bf16(latent[i]));
  for (int i = 0; i < ROPE_DIM; ++i) turned[i] = decode_bf16(rope[i]);
  rotate<ROPE_DIM, !ROPE_HALVES>(turned, rope_row);
  round_to_bf16(turned, ROPE_DIM);
  for (int i = 0; i < ROPE_DIM; ++i) codes[LATENT + i] = encode_fp8(turned[i]);
}

extern "C" void qk_rope_cat_and_cache_mla(BUFFER(q), BUFFER(q_absorbed), BUFFER(latent), BUFFER(qkv_a),
                                          BUFFER(rope_table), BUFFER(positions), BUFFER(cache), BUFFER(slot_mapping),
                                          BUFFER(q_cat), int64 heads, int64 head_dim, int64 qkv_a_columns, int64 row,
                                          int64, int64) {
  const float *rope_row = POINTER(const float, rope_table) + POINTER(const int64, positions)[row] * ROPE_DIM;
  for (int64 head = row * heads; head < (row + 1) * heads; ++head)
    join(POINTER(const uint16, q_absorbed) + head * LATENT,
         POINTER(const uint16, q) + (head + 1) * head_dim - ROPE_DIM, rope_row, POINTER(uint8, q_cat) + head * WIDTH);
  int64 slot = POINTER(const int64, slot_mapping)[row];
  if (slot < 0) return;
  join(POINTER(const uint16, latent) + row * LATENT,
       POINTER(const uint16, qkv_a) + (row + 1) * qkv_a_columns - ROPE_DIM, rope_row,
       POINTER(uint8, cache) + slot * WIDTH);
}
