// RMS normalisation of a row on the CPU, in float32.
#pragma once

#include "cpu.h"

// `values` is divided by its root mean square and multiplied by the bf16 `weight`, in place.
DEVICE void rms_normalize(float *values, const uint16 *weight, int64 columns, float epsilon) {
  constexpr int LANES = 16;  // short sums round less, and vectorise
  float lanes[LANES], sum = 0;
  for (int i = 0; i < LANES; ++i) lanes[i] = 0;
  int64 whole = columns / LANES * LANES;
  for (int64 i = 0; i < whole; i += LANES)
    for (int j = 0; j < LANES; ++j) lanes[j] += values[i + j] * values[i + j];
  for (int64 i = whole; i < columns; ++i) lanes[i - whole] += values[i] * values[i];
  for (int i = 0; i < LANES; ++i) sum += lanes[i];
  float factor = 1.0f / __builtin_sqrtf(sum / float(columns) + epsilon);
  for (int64 i = 0; i < columns; ++i) values[i] = values[i] * factor * decode_bf16(weight[i]);
}
