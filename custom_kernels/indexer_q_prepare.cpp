// One head of one row: rope, Hadamard rotation and quantisation of the indexer query; its gate takes all scales.
#include "cpu_indexer.h"

extern "C" void indexer_q_prepare(BUFFER(q), BUFFER(gates), BUFFER(rope_table), BUFFER(positions), BUFFER(codes),
                                  BUFFER(weights), int64 heads, int64 gate_factor_bits, int64 head, int64 row, int64) {
  int64 index = row * heads + head;
  float values[INDEXER_HEAD_DIM];
  for (int i = 0; i < INDEXER_HEAD_DIM; ++i)
    values[i] = decode_bf16(POINTER(const uint16, q)[index * INDEXER_HEAD_DIM + i]);
  int64 position = POINTER(const int64, positions)[row];
  rotate<ROPE_DIM, !ROPE_HALVES>(values, POINTER(const float, rope_table) + position * ROPE_DIM);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  hadamard_rotate(values);
  round_to_bf16(values, INDEXER_HEAD_DIM);
  float scale = quantize_head<true>(values, POINTER(uint8, codes) + index * INDEXER_HEAD_DIM);
  POINTER(float, weights)[index] =
      POINTER(const float, gates)[index] * bits_to_float(uint32(gate_factor_bits)) * scale;
}
