// What the indexer does to a head of 128 elements on the CPU: rope, Hadamard, quantisation with a shared scale.
#pragma once

#include "cpu.h"

constexpr float INDEXER_SCALE_FLOOR = 1e-4f;

// Rotates pair `pair` of `values`; pairs are (2i, 2i + 1), or (i, i + DIM / 2) where not INTERLEAVED.
template <int DIM, bool INTERLEAVED> DEVICE void rotate(float *values, const float *rope_row) {
  constexpr int PAIRS = DIM / 2;
  for (int pair = 0; pair < PAIRS; ++pair) {
    int first = INTERLEAVED ? 2 * pair : pair, second = INTERLEAVED ? 2 * pair + 1 : pair + PAIRS;
    float x = values[first], y = values[second], cosine = rope_row[pair], sine = rope_row[PAIRS + pair];
    values[first] = x * cosine - y * sine;
    values[second] = y * cosine + x * sine;
  }
}

DEVICE void round_to_bf16(float *values, int count) {
  for (int i = 0; i < count; ++i) values[i] = decode_bf16(encode_bf16(values[i]));
}

// Orthonormal, in Sylvester order.
DEVICE void hadamard_rotate(float *values) {
  for (int half = 1; half < INDEXER_HEAD_DIM; half *= 2)
    for (int block = 0; block < INDEXER_HEAD_DIM; block += 2 * half)
      for (int i = block; i < block + half; ++i) {
        float a = values[i], b = values[i + half];
        values[i] = a + b;
        values[i + half] = a - b;
      }
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i) values[i] *= 0.088388347648f;
}

// The least power of two not below a positive float; infinity and NaN stay.
DEVICE float round_up_to_power_of_two(float scale) {
  return scale < __builtin_inff() ? bits_to_float(float_to_bits(scale) + 0x7FFFFF & 0x7F800000) : scale;
}

// Codes of one head, and its scale max(amax, 1e-4) / maximum, rounded up to a power of two where ROUND_UP.
template <bool ROUND_UP> DEVICE float quantize_head(const float *values, uint8 *codes) {
  float amax = amax_of(values, INDEXER_HEAD_DIM);
  float scale = (amax < INDEXER_SCALE_FLOOR ? INDEXER_SCALE_FLOOR : amax) / FP8_MAXIMUM;
  if (ROUND_UP) scale = round_up_to_power_of_two(scale);
  encode_scaled(values, codes, INDEXER_HEAD_DIM, scale);
  return scale;
}

// Rotates and quantises a head of the query; returns its scale.
template <int DIM, bool INTERLEAVED>
DEVICE float prepare_head(const uint16 *q, const float *rope_row, uint8 *codes) {
  float values[INDEXER_HEAD_DIM];
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i) values[i] = decode_bf16(q[i]);
  rotate<DIM, INTERLEAVED>(values, rope_row);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  hadamard_rotate(values);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  return quantize_head<true>(values, codes);
}

// Quantises a key and stores it, and its scale, in its page, of 16 x 16 tiles where TILED. Slot -1 stores nothing.
template <bool TILED, bool ROUND_UP> DEVICE void store_key(const float *values, uint8 *cache, int64 slot) {
  if (slot < 0) return;
  uint8 codes[INDEXER_HEAD_DIM];
  float scale = quantize_head<ROUND_UP>(values, codes);
  uint8 *page = cache + slot / PAGE_TOKENS * INDEXER_PAGE_BYTES;
  int token = int(slot % PAGE_TOKENS);
  for (int dim = 0; dim < INDEXER_HEAD_DIM; ++dim)
    page[TILED ? preshuffled_page_key_offset(token, dim) : plain_page_key_offset(token, dim)] = codes[dim];
  *reinterpret_cast<float *>(page + page_scale_offset(token)) = scale;
}
