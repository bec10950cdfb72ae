// Columns of rows that RMSNorm makes, before anybody knows how large the rows are.
#pragma once

#include "bf16.h"

// Eight columns of the sum of TERMS matrices, times the norm's weights; returns the sum of the squares before that.
template <int TERMS>
DEVICE float weigh_columns(const uint32x4 (&terms)[TERMS], uint32x4 weights, float (&values)[8]) {
  float other[8], squares = 0;
  unpack_bf16x8(terms[0], values);
#pragma unroll
  for (int term = 1; term < TERMS; ++term) {
    unpack_bf16x8(terms[term], other);
#pragma unroll
    for (int i = 0; i < 8; ++i) values[i] += other[i];
  }
  unpack_bf16x8(weights, other);
#pragma unroll
  for (int i = 0; i < 8; ++i) squares += values[i] * values[i], values[i] *= other[i];
  return squares;
}
