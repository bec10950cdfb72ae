// One row: LayerNorm, rope and Hadamard rotation of the indexer key, rounded to bf16 after each, then quantised and
// stored in its page. PRESHUFFLED and POWER_OF_TWO choose the page layout and the scale format.
#include "cpu_indexer.h"

extern "C" void indexer_k_prepare_and_cache(BUFFER(k), BUFFER(weight), BUFFER(bias), BUFFER(rope_table),
                                            BUFFER(positions), BUFFER(cache), BUFFER(slot_mapping),
                                            int64 epsilon_bits, int64 row, int64, int64) {
  float values[INDEXER_HEAD_DIM], mean = 0, variance = 0;
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i) {
    values[i] = decode_bf16(POINTER(const uint16, k)[row * INDEXER_HEAD_DIM + i]);
    mean += values[i];
  }
  mean /= INDEXER_HEAD_DIM;
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i) {
    values[i] -= mean;
    variance += values[i] * values[i];
  }
  float factor = 1.0f / __builtin_sqrtf(variance / INDEXER_HEAD_DIM + bits_to_float(uint32(epsilon_bits)));
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i)
    values[i] = values[i] * factor * decode_bf16(POINTER(const uint16, weight)[i]) +
                decode_bf16(POINTER(const uint16, bias)[i]);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  int64 position = POINTER(const int64, positions)[row];
  rotate<ROPE_DIM, !ROPE_HALVES>(values, POINTER(const float, rope_table) + position * ROPE_DIM);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  hadamard_rotate(values);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  store_key<PRESHUFFLED, POWER_OF_TWO>(values, POINTER(uint8, cache), POINTER(const int64, slot_mapping)[row]);
}
