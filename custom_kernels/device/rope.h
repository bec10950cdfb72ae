// Rotary embedding of columns in registers: 8 consecutive ones per lane, consecutive lanes along the head.
//
// A row of the table holds the cosines of the pairs, then their sines. No product is fused with a sum: every
// target, and the reference, gets the same bits.
#pragma once

#include "compiler.h"

// Pairs (2i, 2i + 1), both in one lane.
DEVICE void rotate_interleaved(float (&values)[8], int dim, int rope_dim, const float *table_row) {
#pragma clang fp contract(off)
  if (dim < 0 || dim >= rope_dim) return;
#pragma unroll
  for (int i = 0; i < 8; i += 2) {
    float cosine = table_row[(dim + i) / 2], sine = table_row[(rope_dim + dim + i) / 2];
    float x = values[i], y = values[i + 1];
    values[i] = x * cosine - y * sine;
    values[i + 1] = y * cosine + x * sine;
  }
}

// Pairs (i, i + rope_dim / 2), in two lanes that are rope_dim / 16 apart. That must be a power of two, and
// the rotated columns must start in a lane that is a multiple of rope_dim / 8. All lanes must call.
DEVICE void rotate_halves(float (&values)[8], int dim, int rope_dim, const float *table_row) {
#pragma clang fp contract(off)
  bool rotated = dim >= 0 && dim < rope_dim;
  bool second = dim >= rope_dim / 2;
  int pair = rotated ? dim - (second ? rope_dim / 2 : 0) : 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    float partner = wave_read(values[i], lane_id() ^ (rope_dim / 16));
    float cosine = table_row[pair + i], sine = table_row[rope_dim / 2 + pair + i];
    float turned = values[i] * cosine + partner * (second ? sine : -sine);
    values[i] = rotated ? turned : values[i];
  }
}

// `values` are columns `dim` to `dim + 7` of the `rope_dim` rotated columns of a head; any other `dim` leaves
// the values alone. All lanes of the wave must call.
template <bool HALVES> DEVICE void rotate(float (&values)[8], int dim, int rope_dim, const float *table_row) {
  if constexpr (HALVES) rotate_halves(values, dim, rope_dim, table_row);
  else rotate_interleaved(values, dim, rope_dim, table_row);
}
