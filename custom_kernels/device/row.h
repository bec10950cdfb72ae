// A row, or a chunk of it, in the registers of one workgroup: load, RMS-normalise, quantise, store.
//
// Chunk c of thread t holds columns c * ROW_COLUMNS + 8t and the seven after it, zeros beyond the row's end.
// A row's columns are a multiple of 8, and of 128 where it is quantised, so a group is never cut. They are known when
// compiling.
#pragma once

#include "float_math.h"
#include "group_quant.h"

constexpr int ROW_THREADS = 256;
constexpr int ROW_COLUMNS = ROW_THREADS * COLUMNS_PER_LANE;

template <int COUNT> using Row = float[COUNT][COLUMNS_PER_LANE];

// Workgroup memory of a normalisation.
using RowShared = OfWaves<ROW_THREADS, float>;

DEVICE int row_column(int chunk) { return chunk * ROW_COLUMNS + thread_id() * COLUMNS_PER_LANE; }

// Whether this thread has columns in `chunk`; all have where chunks are whole.
DEVICE bool in_row(int chunk, int columns) {
  return (columns % ROW_COLUMNS == 0 ? chunk * ROW_COLUMNS : row_column(chunk)) < columns;
}

// Columns of chunk `chunk` of a row at `source`.
DEVICE void load_chunk(const bf16 *source, int columns, int chunk, float (&values)[COLUMNS_PER_LANE]) {
  if (in_row(chunk, columns)) {
    load_bf16x8(source + row_column(chunk), values);
  } else {
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = 0;
  }
}

DEVICE void store_chunk(const float (&values)[COLUMNS_PER_LANE], int columns, int chunk, bf16 *target) {
  if (in_row(chunk, columns)) store_bf16x8(target + row_column(chunk), values);
}

// Chunk of row `index` of `rows` rows of codes [rows, columns] and group-major scales [columns / 128, rows].
DEVICE void quantize_chunk(const float (&values)[COLUMNS_PER_LANE], int index, int rows, int columns, int chunk,
                           uint8 *codes, float *scales) {
  int column = row_column(chunk);
  quantize_group(values, codes + row_major_offset(index, column, columns),
                 scales + group_major_scale_offset(index, column / GROUP, rows), in_row(chunk, columns));
}

template <int COUNT> DEVICE void load_row(const bf16 *source, int columns, Row<COUNT> &row) {
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) load_chunk(source, columns, chunk, row[chunk]);
}

// What one of PARTS workgroups that all hold a row of COLUMNS columns stores of it: the pieces that waves hold of a chunk
// are dealt in order, to every part as many.
template <int COLUMNS, int PARTS> struct RowPart {
  static constexpr int WAVES = ROW_THREADS / WAVE_SIZE, PIECES = divide_up(COLUMNS, WAVE_SIZE * COLUMNS_PER_LANE);
  static constexpr int CHUNKS = divide_up(divide_up(PIECES, PARTS), WAVES);  // of which a wave has a piece, at most
  int first, end;

  static DEVICE RowPart at(int index) { return {index * PIECES / PARTS, (index + 1) * PIECES / PARTS}; }
  // The chunk of the wave's piece `i`, if it `has` one.
  MEMBER int chunk(int i) const {
    int wave = uniform_wave_id();
    return (first > wave ? divide_up(first - wave, WAVES) : 0) + i;
  }
  MEMBER bool has(int i) const {
    return (i + 1) * WAVES <= PIECES / PARTS || chunk(i) * WAVES + uniform_wave_id() < end;
  }
};

template <int COUNT> DEVICE void select_chunk(const Row<COUNT> &row, int chunk, float (&values)[COLUMNS_PER_LANE]) {
#pragma unroll
  for (int c = 0; c < COUNT; ++c)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = c == 0 || c == chunk ? row[c][i] : values[i];
}

// rsqrt(mean(row^2) + epsilon). `shared` must not be in use.
template <int COUNT> DEVICE float norm_factor(const Row<COUNT> &row, int columns, float epsilon, RowShared &shared) {
  float squares[COUNT] = {}, sum = 0;
#pragma unroll
  for (int i = 0; i < COLUMNS_PER_LANE; ++i)
#pragma unroll
    for (int chunk = 0; chunk < COUNT; ++chunk) squares[chunk] += row[chunk][i] * row[chunk][i];
#pragma unroll
  for (int chunk = 0; chunk < COUNT; ++chunk) sum += squares[chunk];
  return 1.0f / square_root(reduce_threads<Sum, ROW_THREADS>(sum, shared) / columns + epsilon);
}

DEVICE void scale_chunk(float (&values)[COLUMNS_PER_LANE], float factor, const float (&weights)[COLUMNS_PER_LANE]) {
#pragma unroll
  for (int i = 0; i < COLUMNS_PER_LANE; ++i) values[i] = values[i] * factor * weights[i];
}
