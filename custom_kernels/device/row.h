// A row, or a chunk of it, in the registers of one workgroup: load, RMS-normalise, quantise, store.
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

// Columns of chunk `chunk` of a row at `source`.
DEVICE void load_chunk(const bf16 *source, int columns, int chunk, float (&values)[COLUMNS_PER_LANE]) {
  int column = row_column(chunk);
  if (column < columns) {
    load_bf16x8(source + column, values);
  } else {
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = 0;
  }
}

DEVICE void store_chunk(const float (&values)[COLUMNS_PER_LANE], int columns, int chunk, bf16 *target) {
  int column = row_column(chunk);
  if (column < columns) store_bf16x8(target + column, values);
}

// Chunk of row `index` of `rows` rows of codes [rows, columns] and group-major scales [columns / 128, rows].
DEVICE void quantize_chunk(const float (&values)[COLUMNS_PER_LANE], int index, int rows, int columns, int chunk,
                           uint8 *codes, float *scales) {
  int column = row_column(chunk);
  quantize_group(values, codes + row_major_offset(index, column, columns),
                 scales + group_major_scale_offset(index, column / GROUP, rows), column < columns);
}

template <int COUNT> DEVICE void load_row(const bf16 *source, int columns, Row<COUNT> &row) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) load_chunk(source, columns, chunk, row[chunk]);
}

template <int COUNT> DEVICE void select_chunk(const Row<COUNT> &row, int chunk, float (&values)[COLUMNS_PER_LANE]) {
#pragma unroll
  for (int c = 0; c < COUNT; ++c)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = c == 0 || c == chunk ? row[c][i] : values[i];
}

// rsqrt(mean(row^2) + epsilon). `shared` must not be in use.
template <int COUNT> DEVICE float norm_factor(const Row<COUNT> &row, int columns, float epsilon, RowShared &shared) {
  float squares = 0;
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) squares += row[chunk][i] * row[chunk][i];
  return 1.0f / square_root(reduce_threads<Sum, ROW_THREADS>(squares, shared) / columns + epsilon);
}

DEVICE void scale_chunk(float (&values)[COLUMNS_PER_LANE], float factor, const float (&weights)[COLUMNS_PER_LANE]) {
#pragma unroll
  for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = values[i] * factor * weights[i];
}
