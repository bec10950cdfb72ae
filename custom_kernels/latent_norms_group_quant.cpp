// One row of the qkv_a output: query norm and quantisation, latent norm. QUERY_DIM and LATENT_DIM are constants.
#include "cpu_norm.h"

extern "C" void latent_norms_group_quant(BUFFER(qkv_a), BUFFER(query_weight), BUFFER(latent_weight), BUFFER(values),
                                         BUFFER(scales), BUFFER(latent), int64 rows, int64 columns,
                                         int64 query_epsilon, int64 latent_epsilon, int64 row, int64, int64) {
  const uint16 *given = POINTER(const uint16, qkv_a) + row * columns;
  float query[QUERY_DIM], key[LATENT_DIM];
  for (int i = 0; i < QUERY_DIM; ++i) query[i] = decode_bf16(given[i]);
  rms_normalize(query, POINTER(const uint16, query_weight), QUERY_DIM, bits_to_float(uint32(query_epsilon)));
  quantize_row(query, POINTER(uint8, values), POINTER(float, scales), row, rows, QUERY_DIM);
  for (int i = 0; i < LATENT_DIM; ++i) key[i] = decode_bf16(given[QUERY_DIM + i]);
  rms_normalize(key, POINTER(const uint16, latent_weight), LATENT_DIM, bits_to_float(uint32(latent_epsilon)));
  for (int i = 0; i < LATENT_DIM; ++i) POINTER(uint16, latent)[row * LATENT_DIM + i] = encode_bf16(key[i]);
}
