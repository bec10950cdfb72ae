// One row of the qkv_a output: query norm and quantisation; latent norm and rotated rope part, stored as the row's key.
// QUERY_DIM, LATENT_DIM, ROPE_DIM and ROPE_HALVES are constants. A row with slot -1 stores no key.
#include "cpu_indexer.h"
#include "cpu_norm.h"

extern "C" void latent_norms_and_cache(BUFFER(qkv_a), BUFFER(query_weight), BUFFER(latent_weight), BUFFER(rope_table),
                                       BUFFER(positions), BUFFER(cache), BUFFER(slot_mapping), BUFFER(values),
                                       BUFFER(scales), int64 rows, int64 query_epsilon, int64 latent_epsilon,
                                       int64 row, int64, int64) {
  constexpr int KEY_DIM = LATENT_DIM + ROPE_DIM;
  const uint16 *given = POINTER(const uint16, qkv_a) + row * (QUERY_DIM + KEY_DIM);
  float query[QUERY_DIM], key[KEY_DIM];
  for (int i = 0; i < QUERY_DIM; ++i) query[i] = decode_bf16(given[i]);
  rms_normalize(query, POINTER(const uint16, query_weight), QUERY_DIM, bits_to_float(uint32(query_epsilon)));
  quantize_row(query, POINTER(uint8, values), POINTER(float, scales), row, rows, QUERY_DIM);
  int64 slot = POINTER(const int64, slot_mapping)[row];
  if (slot < 0) return;
  for (int i = 0; i < KEY_DIM; ++i) key[i] = decode_bf16(given[QUERY_DIM + i]);
  rms_normalize(key, POINTER(const uint16, latent_weight), LATENT_DIM, bits_to_float(uint32(latent_epsilon)));
  rotate<ROPE_DIM, !ROPE_HALVES>(key + LATENT_DIM,
                                 POINTER(const float, rope_table) + POINTER(const int64, positions)[row] * ROPE_DIM);
  round_to_bf16(key, KEY_DIM);
  for (int i = 0; i < KEY_DIM; ++i) POINTER(uint8, cache)[slot * KEY_DIM + i] = encode_fp8(key[i]);
}
