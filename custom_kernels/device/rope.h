// Rotary embedding of columns in registers: 8 consecutive ones per lane, consecutive lanes along the head.
//
// A row of the table holds the cosines of the pairs, then their sines. No product is fused with a sum: every
// target, and the reference, gets the same bits. Table rows are 16-byte aligned.
#pragma once

#include "compiler.h"

// Cosines and sines of a lane's columns: four pairs where they are interleaved, else eight, of which each lane has
// one half.
template <bool HALVES> struct RopeColumns {
  float4 cosines[HALVES ? 2 : 1], sines[HALVES ? 2 : 1];
};

DEVICE bool is_rotated(int dim, int rope_dim) { return dim >= 0 && dim < rope_dim; }

// Of the columns `dim` to `dim + 7` of the `rope_dim` rotated columns of a head; for any other `dim`, of some columns.
template <bool HALVES> DEVICE RopeColumns<HALVES> load_rope(int dim, int rope_dim, const float *table_row) {
  int column = is_rotated(dim, rope_dim) ? dim : 0, half = rope_dim / 2;
  const float *pairs = table_row + (HALVES ? column - (column >= half ? half : 0) : column / 2);
  RopeColumns<HALVES> loaded;
#pragma unroll
  for (int i = 0; i < (HALVES ? 2 : 1); ++i) {
    loaded.cosines[i] = *(const float4 *)(pairs + 4 * i);
    loaded.sines[i] = *(const float4 *)(pairs + half + 4 * i);
  }
  return loaded;
}

// Pairs (2i, 2i + 1), both in one lane.
DEVICE void rotate(float (&values)[8], int dim, int rope_dim, const RopeColumns<false> &rope) {
#pragma clang fp contract(off)
  if (!is_rotated(dim, rope_dim)) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float x = values[2 * i], y = values[2 * i + 1], cosine = rope.cosines[0][i], sine = rope.sines[0][i];
    values[2 * i] = x * cosine - y * sine;
    values[2 * i + 1] = y * cosine + x * sine;
  }
}

// Pairs (i, i + rope_dim / 2), in two lanes that are rope_dim / 16 apart. That must be a power of two, and
// the rotated columns must start in a lane that is a multiple of rope_dim / 8. All lanes must call.
DEVICE void rotate(float (&values)[8], int dim, int rope_dim, const RopeColumns<true> &rope) {
#pragma clang fp contract(off)
  bool rotated = is_rotated(dim, rope_dim), second = dim >= rope_dim / 2;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float partner = wave_read(values[i], lane_id() ^ (rope_dim / 16));
    float cosine = rope.cosines[i / 4][i % 4], sine = rope.sines[i / 4][i % 4];
    float turned = values[i] * cosine + partner * (second ? sine : -sine);
    values[i] = rotated ? turned : values[i];
  }
}

// `values` are columns `dim` to `dim + 7` of the `rope_dim` rotated columns of a head; any other `dim` leaves
// the values alone. All lanes of the wave must call.
template <bool HALVES> DEVICE void rotate(float (&values)[8], int dim, int rope_dim, const float *table_row) {
  rotate(values, dim, rope_dim, load_rope<HALVES>(dim, rope_dim, table_row));
}
