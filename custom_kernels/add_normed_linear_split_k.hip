// Residual sum of few rows, weighed by an RMSNorm, and partial sums of an unquantised product with them.
//
// A workgroup takes BANDS bands of 16 weight rows, each by two waves that share the ROWS rows, and one of SLICES slices
// of the COLUMNS columns: so few that it makes the rows for itself. They are rounded to bf16 before they are divided by
// their size, which the reader of the sums does.
//
// ROWS, COLUMNS, OUTPUTS and SLICES are compile-time constants.
#include "bf16.h"
#include "grid.h"
#include "half_matrix.h"
#include "layouts.h"
#include "pipeline.h"
#include "row_copies.h"
#include "split_k.h"
#include "wave_totals.h"
#include "weighed_columns.h"

constexpr int THREADS = 256, WAVES = THREADS / WAVE_SIZE, BAND_WAVES = 2, BANDS = WAVES / BAND_WAVES;
constexpr int TILE_OUTPUTS = BANDS * TILE, TILES = OUTPUTS / TILE_OUTPUTS;
constexpr int SLICE = COLUMNS / SLICES;
constexpr int PARTS = divide_up(ROWS, PART_ROWS), OWN_PARTS = divide_up(PARTS, BAND_WAVES);
// A thread loads pieces of eight columns.
constexpr int PIECE_COLUMNS = 16 / sizeof(bf16), ROW_PIECES = SLICE / PIECE_COLUMNS, PIECES = ROWS * ROW_PIECES;
constexpr int OWN_PIECES = divide_up(PIECES, THREADS);
// An odd number of 32 bytes: four rows start in different banks.
constexpr int PLACE_COLUMNS = SLICE / HALF_COLUMNS % 2 ? SLICE : SLICE + HALF_COLUMNS;
static_assert(OUTPUTS % TILE_OUTPUTS == 0 && COLUMNS % (SLICES * HALF_COLUMNS) == 0 && ROWS <= THREADS);
using Partials = SplitKPartials<ROWS, OUTPUTS>;

struct Shared {
  alignas(16) bf16 weights[TILE_OUTPUTS][PLACE_COLUMNS];
  alignas(16) bf16 rows[ROWS][PLACE_COLUMNS];
  float squares[ROWS][ROW_PIECES + 1];
};

// Piece `k` of a thread; past the end the last one again, which is another's.
struct Piece {
  bool own;
  int row, index;
  MEMBER Piece(int k) {
    int piece = k * THREADS + thread_id();
    own = PIECES % THREADS == 0 || piece < PIECES;
    if (!own) piece = PIECES - 1;
    row = piece / ROW_PIECES;
    index = piece % ROW_PIECES;
  }
  MEMBER int column() const { return index * PIECE_COLUMNS; }
};

// The wave's part `i` of the rows.
DEVICE int own_part(int i) { return wave_id() % BAND_WAVES + i * BAND_WAVES; }

// The four columns of a fragment that a lane holds of the row at `row`.
DEVICE uint32x2 lane_columns(const bf16 *row, int column) {
  return *(const uint32x2 *)(row + column + fragment_tile() * HALF_COLUMNS_PER_LANE);
}

DEVICE void multiply_slice(const Shared &shared, int band, PartTotals (&totals)[OWN_PARTS]) {
#pragma unroll
  for (int column = 0; column < SLICE; column += HALF_COLUMNS) {
    HalfFragment weights;
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part)
      weights.part[part] = lane_columns(shared.weights[band * TILE + fragment_row(part)], column);
#pragma unroll
    for (int i = 0; i < OWN_PARTS; ++i) {
      int row = own_part(i) * PART_ROWS + fragment_row(0);
      multiply_part_bf16(weights, lane_columns(shared.rows[row < ROWS ? row : ROWS - 1], column), totals[i].element);
    }
  }
}

DEVICE void add_normed_linear_split_k(EarlyWorkgroup workgroup, Shared &shared, const bf16 *x, const bf16 *residual,
                                      const bf16 *norm_weight, const bf16 *weight, float *partials) {
  int slice = workgroup.x / TILES, first_output = workgroup.x % TILES * TILE_OUTPUTS, first_column = slice * SLICE;
  uint32x4 terms[OWN_PIECES][2], norm_weights[OWN_PIECES];
  auto load_rows = [&]() INLINE {
#pragma unroll
    for (int k = 0; k < OWN_PIECES; ++k) {
      Piece piece(k);
      int64 offset = row_major_offset(piece.row, first_column + piece.column(), COLUMNS);
      terms[k][0] = *(const uint32x4 *)(x + offset);
      terms[k][1] = *(const uint32x4 *)(residual + offset);
    }
  };
#pragma unroll
  for (int k = 0; k < OWN_PIECES; ++k)
    norm_weights[k] = *(const uint32x4 *)(norm_weight + first_column + Piece(k).column());
  if (!workgroup.waits()) load_rows();
  schedule_boundary();
#pragma unroll
  for (int i = thread_id(); i < TILE_OUTPUTS * ROW_PIECES; i += THREADS) {
    int output = i / ROW_PIECES, column = i % ROW_PIECES * PIECE_COLUMNS;
    copy_16_bytes(&shared.weights[output][column],
                  weight + row_major_offset(first_output + output, first_column + column, COLUMNS));
  }
  end_copies();
  workgroup.await_inputs();
  if (workgroup.waits()) load_rows();
#pragma unroll
  for (int k = 0; k < OWN_PIECES; ++k) {
    Piece piece(k);
    float values[PIECE_COLUMNS], squares = weigh_columns(terms[k], norm_weights[k], values);
    if (!piece.own) continue;
    store_bf16x8(&shared.rows[piece.row][piece.column()], values);
    shared.squares[piece.row][piece.index] = squares;
  }
  await_copies<0>();
  barrier();
  int row = thread_id();
  if (first_output == 0 && row < ROWS) {
    float sum = 0;
#pragma unroll
    for (int i = 0; i < ROW_PIECES; ++i) sum += shared.squares[row][i];
    partials[Partials::mean_square(slice, row)] = sum * (1.0f / COLUMNS);
  }
  int band = wave_id() / BAND_WAVES;
  PartTotals totals[OWN_PARTS];
  multiply_slice(shared, band, totals);
#pragma unroll
  for (int i = 0; i < OWN_PARTS; ++i)
#pragma unroll
    for (int c = 0; c < PART_COLUMNS; ++c)
#pragma unroll
      for (int r = 0; r < ACCUMULATOR_ROWS; ++r) {
        int row = own_part(i) * PART_ROWS + accumulator_column(c), output = band * TILE + accumulator_row(r);
        if (row < ROWS) partials[Partials::term(slice, row, first_output + output)] = totals[i].element[c][r];
      }
}
