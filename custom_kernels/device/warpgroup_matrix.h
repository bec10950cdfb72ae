// Products of FP8 matrices with float32 sums by a warpgroup: four waves and the `wgmma` of NVIDIA's sm_90.
//
// The unit could take FP8 itself, but adds such products up with fewer bits than float32 has. As float16, which holds
// every FP8 value exactly, they are added as float32. The left operand is 64 rows, of which each wave holds 16 as
// its lanes' registers; the right one's rows lie in workgroup memory. Both have 128 columns of FP8, in tiles of 16.
//
// Within a column tile the unit is given the columns in another order than they lie in: its columns 2i, 2i + 1, 8 + 2i
// and 9 + 2i are a tile's 4i to 4i + 3, a word of FP8. So a word in a register becomes two in place.
#pragma once

#include "bulk_copy.h"
#include "matrix.h"

#if defined(__NVPTX__)
constexpr int WARPGROUP_WAVES = 4;
constexpr int WARPGROUP_COLUMNS = 128;
constexpr int COLUMN_TILES = WARPGROUP_COLUMNS / TILE;

DEVICE int warpgroup_id() { return wave_id() / WARPGROUP_WAVES; }

// The warpgroup's threads arrive, and see each other's earlier writes to workgroup memory. At most two warpgroups.
DEVICE void warpgroup_barrier() {
  if (warpgroup_id() == 0)
    asm volatile("bar.sync 1, 128;" ::: "memory");
  else
    asm volatile("bar.sync 2, 128;" ::: "memory");
}

// This wave's 16 rows of the left operand. Word [tile][half] has columns 4 * (lane % 4) on of row lane / 4 + 8 * half.
using LeftRows = uint32[COLUMN_TILES][2];

// From a tiled band of 16 rows in workgroup memory.
DEVICE void load_left_rows(const uint8 *band, LeftRows &rows) {
#pragma unroll
  for (int tile = 0; tile < COLUMN_TILES; tile += 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(rows[tile][0]), "=r"(rows[tile][1]), "=r"(rows[tile + 1][0]), "=r"(rows[tile + 1][1])
                 : "r"(shared_address(band + tile * (TILE * TILE) + lane_id() * TILE))
                 : "memory");
}

// The right operand: for each column tile, and each half of the unit's columns, 16 bytes of every row; then PADDING
// times 16 bytes, so that a row's tiles lie in different banks.
template <int ROWS, int PADDING = 0> struct RightRows {
  static constexpr int TILE_PIECES = 2 * ROWS + PADDING;
  uint32x4 pieces[COLUMN_TILES][TILE_PIECES];

  MEMBER uint32x4 &piece(int tile, int half, int row) {
    return pieces[tile][half * ROWS + row];
  }
};

// The right operand as THREADS threads hold it on its way to workgroup memory: FP8, 16 bytes of a row at a time.
template <int ROWS, int THREADS> struct RightCodes {
  static constexpr int COUNT = divide_up(ROWS * COLUMN_TILES, THREADS);
  uint32x4 codes[COUNT];
};

// The row and the column tile of a thread's piece `i`. Neighbouring lanes have neighbouring rows.
template <int THREADS> DEVICE int right_row(int i) {
  int piece = i * THREADS + thread_id();
  return piece / (8 * COLUMN_TILES) * 8 + piece % 8;
}
DEVICE int right_tile() { return thread_id() / 8 % COLUMN_TILES; }

// From row-major FP8 rows.
template <int ROWS, int THREADS> DEVICE void load_right_codes(const uint8 *rows, RightCodes<ROWS, THREADS> &loaded) {
#pragma unroll
  for (int i = 0; i < loaded.COUNT; ++i) {
    int row = right_row<THREADS>(i);
    if (row < ROWS)
      loaded.codes[i] = *(const uint32x4 *)(rows + row_major_offset(row, right_tile() * TILE, WARPGROUP_COLUMNS));
  }
}

// All threads of the workgroup must call, and barrier() thereafter.
template <int ROWS, int THREADS>
DEVICE void store_right_rows(const RightCodes<ROWS, THREADS> &loaded, RightRows<ROWS> &right) {
#pragma unroll
  for (int i = 0; i < loaded.COUNT; ++i) {
    uint32x4 halves[2];
#pragma unroll
    for (int word = 0; word < 4; ++word) {
      uint32x2 converted = to_float16x4(loaded.codes[i][word]);
      halves[0][word] = converted[0];
      halves[1][word] = converted[1];
    }
    int row = right_row<THREADS>(i);
#pragma unroll
    for (int half = 0; half < 2; ++half)
      if (row < ROWS) right.piece(right_tile(), half, row) = halves[half];
  }
  publish_to_engines();
}

// Stores eight columns of row `row`, FP8, from `column` on. The thread must publish_to_engines() thereafter, and all of
// the workgroup barrier().
template <int ROWS, int PADDING>
DEVICE void store_right_columns(uint32x2 codes, int row, int column, RightRows<ROWS, PADDING> &right) {
  uint32x2 first = to_float16x4(codes[0]), second = to_float16x4(codes[1]);
#pragma unroll
  for (int half = 0; half < 2; ++half)
    ((uint32x2 *)&right.piece(column / TILE, half, row))[column % TILE / 8] = uint32x2{first[half], second[half]};
}

// Sums of this wave's 16 rows with N rows of the right operand. Element [i][half][j] is of row lane / 4 + 8 * half, and
// of row 8 * i + 2 * (lane % 4) + j of the right operand.
template <int N> using WarpgroupSums = float[N / 8][2][2];

// The sums are read only now, when the unit has finished them.
template <int N> DEVICE void pin(float (&sums)[N][2][2]) {
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int j = 0; j < 2; ++j) asm volatile("" : "+f"(sums[i][half][j]));
}

// An instruction's first operands: the sums with 8 rows and more of the right operand.
#define FIRST_SUMS_8 "%0, %1, %2, %3"
#define FIRST_SUMS_16 FIRST_SUMS_8 ", %4, %5, %6, %7"
#define FIRST_SUMS_32 FIRST_SUMS_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define FIRST_SUMS_48 FIRST_SUMS_32 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define FIRST_SUMS_64 FIRST_SUMS_48 ", %24, %25, %26, %27, %28, %29, %30, %31"

// sums = products over one column tile, 64 x 16 by N x 16, or += if `add`.
#define SUMS_OF(i) "+f"(sums[i][0][0]), "+f"(sums[i][0][1]), "+f"(sums[i][1][0]), "+f"(sums[i][1][1])
#define DEFINE_MULTIPLY_TILE(N, NAMES, ...)                                                                          \
  DEVICE void multiply_tile(WarpgroupSums<N> &sums, uint32x2 upper, uint32x2 lower, uint64 right, bool add) {         \
    asm volatile("{ .reg .pred add; setp.ne.b32 add, %[add], 0;\n\t"                                                 \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.f16.f16 {" NAMES "}, "                              \
                 "{%[left0], %[left1], %[left2], %[left3]}, %[right], add, 1, 1, 0; }"                               \
                 : __VA_ARGS__                                                                                       \
                 : [left0] "r"(upper[0]), [left1] "r"(lower[0]), [left2] "r"(upper[1]), [left3] "r"(lower[1]),       \
                   [right] "l"(right), [add] "r"(int(add)));                                                         \
  }
DEFINE_MULTIPLY_TILE(16, FIRST_SUMS_16, SUMS_OF(0), SUMS_OF(1))
DEFINE_MULTIPLY_TILE(32, FIRST_SUMS_32, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3))
DEFINE_MULTIPLY_TILE(48, FIRST_SUMS_48, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5))
DEFINE_MULTIPLY_TILE(64, FIRST_SUMS_64, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5),
                     SUMS_OF(6), SUMS_OF(7))
#undef SUMS_OF
#undef DEFINE_MULTIPLY_TILE

// sums = products of all 128 columns. All four waves must call.
template <int N, int PADDING>
DEVICE void multiply_rows(const LeftRows &left, const RightRows<N, PADDING> &right, WarpgroupSums<N> &sums) {
  uint32x2 halves[COLUMN_TILES][2];
#pragma unroll
  for (int tile = 0; tile < COLUMN_TILES; ++tile)
#pragma unroll
    for (int half = 0; half < 2; ++half) halves[tile][half] = to_float16x4(left[tile][half]);
  // Eight rows' 16 bytes of columns are a piece of 128 bytes. The unit is told, in units of 16 bytes, where the first
  // piece lies, how far apart the pieces of the two halves are, and those of the next eight rows.
  uint64 pieces = place_for_engines(&right) | uint64(N) << 16 | uint64(8) << 32;
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
  for (int tile = 0; tile < COLUMN_TILES; ++tile)
    multiply_tile(sums, halves[tile][0], halves[tile][1], pieces + tile * right.TILE_PIECES, tile > 0);
  asm volatile("wgmma.commit_group.sync.aligned;\n\twgmma.wait_group.sync.aligned 0;" ::: "memory");
  pin(sums);
}
#endif
