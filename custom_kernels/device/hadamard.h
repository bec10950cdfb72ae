// Orthonormal Hadamard rotation of 128 elements in Sylvester order, 8 consecutive ones in each of 16 lanes.
#pragma once

#include "compiler.h"

constexpr float HADAMARD_SCALE = 0.08838834764831845f;  // 128 ** -0.5

// Butterflies over the index bits from the lowest to the highest. All lanes of the wave must call.
DEVICE void hadamard_rotate(float (&values)[8]) {
#pragma unroll
  for (int distance = 1; distance < 8; distance *= 2)
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (i & distance) continue;
      float low = values[i], high = values[i + distance];
      values[i] = low + high;
      values[i + distance] = low - high;
    }
#pragma unroll
  for (int distance = 1; distance < 16; distance *= 2)
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      float other = wave_read(values[i], lane_id() ^ distance);
      values[i] = lane_id() & distance ? other - values[i] : values[i] + other;
    }
#pragma unroll
  for (int i = 0; i < 8; ++i) values[i] *= HADAMARD_SCALE;
}
