// A row held in the registers of one workgroup: load, RMS-normalise, quantise, store.
//
// Chunk c of thread t holds columns c * ROW_COLUMNS + 8t and the seven after it, zeros beyond the row's end.
// A row's columns are a multiple of 8, and of 128 where it is quantised, so a group is never cut.
#pragma once

#include "float_math.h"
#include "group_quant.h"

constexpr int ROW_THREADS = 256;
constexpr int ROW_COLUMNS = ROW_THREADS * COLUMNS_PER_LANE;

template <int COUNT> using Row = float[COUNT][COLUMNS_PER_LANE];

// Workgroup memory of a normalisation.
using RowShared = OfWaves<ROW_THREADS, float>;

DEVICE int row_column(int chunk) { return chunk * ROW_COLUMNS + thread_id() * COLUMNS_PER_LANE; }

template <int COUNT> DEVICE void load_row(const bf16 *source, int columns, Row<COUNT> &row) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) {
    int column = row_column(chunk);
    if (column < columns) {
      load_bf16x8(source + column, row[chunk]);
    } else {
#pragma unroll
      for (int i = 0; i < COLUMNS_PER_LANE; ++i) row[chunk][i] = 0;
    }
  }
}

template <int COUNT> DEVICE void store_row(const Row<COUNT> &row, int columns, bf16 *target) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) {
    int column = row_column(chunk);
    if (column < columns) store_bf16x8(target + column, row[chunk]);
  }
}

// row *= rsqrt(mean(row^2) + epsilon), then *= weight.
template <int COUNT>
DEVICE void normalize_row(Row<COUNT> &row, const bf16 *weight, int columns, float epsilon, RowShared &shared) {
  Row<COUNT> weights;  // loaded before the barriers, so that the loads of both rows are in flight together
  load_row<COUNT>(weight, columns, weights);
  float squares = 0;
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) squares += row[chunk][i] * row[chunk][i];
  float factor = 1.0f / square_root(reduce_workgroup<Sum, ROW_THREADS>(squares, shared) / columns + epsilon);
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) row[chunk][i] = row[chunk][i] * factor * weights[chunk][i];
}

// Row `index` of `rows` rows of codes [rows, columns] and group-major scales [columns / 128, rows].
template <int COUNT>
DEVICE void quantize_row(const Row<COUNT> &row, int index, int rows, int columns, uint8 *codes,
                         float *scales) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) {
    int column = row_column(chunk);
    quantize_group(row[chunk], codes + row_major_offset(index, column, columns),
                   scales + group_major_scale_offset(index, column / GROUP, rows), column < columns);
  }
}
