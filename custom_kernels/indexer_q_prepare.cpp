// One head of one row: rope, Hadamard rotation and quantisation of the indexer query; its gate takes all scales.
#include "cpu_indexer.h"

extern "C" void indexer_q_prepare(BUFFER(q), BUFFER(gates), BUFFER(rope_table), BUFFER(positions), BUFFER(codes),
                                  BUFFER(weights), int64 heads, int64 gate_factor_bits, int64 head, int64 row, int64) {
  int64 index = row * heads + head, first = index * INDEXER_HEAD_DIM;
  const float *rope_row = POINTER(const float, rope_table) + POINTER(const int64, positions)[row] * ROPE_DIM;
  float scale = prepare_head<ROPE_DIM, !ROPE_HALVES>(POINTER(const uint16, q) + first, rope_row,
                                                     POINTER(uint8, codes) + first);
  POINTER(float, weights)[index] =
      POINTER(const float, gates)[index] * bits_to_float(uint32(gate_factor_bits)) * scale;
}
