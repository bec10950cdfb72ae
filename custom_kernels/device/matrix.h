// 16 x 16 tiles of FP8 products with float32 sums, on the matrix unit of a wave (MFMA, or NVIDIA's mma).
//
// A fragment is 16 rows x 64 columns of FP8. Every lane holds, in each of its parts, one row's 16 bytes of a
// 16-column tile: just what a 16-byte load from a tiled matrix gives. `multiply` sums over the 64 columns;
// the order in which the unit takes them does not matter while both operands agree: nothing is shuffled.
// The FP8 format is the chip's own (E4M3FNUZ on gfx942, E4M3FN elsewhere).
#pragma once

#include "compiler.h"
#include "layouts.h"

constexpr int FRAGMENT_COLUMNS = 64;
constexpr int FRAGMENT_PARTS = 64 / WAVE_SIZE;
constexpr int PART_ROWS = TILE / FRAGMENT_PARTS;

struct Fragment {
  uint32x4 part[FRAGMENT_PARTS];
};

#if defined(__AMDGCN__)
DEVICE int fragment_row(int part) { return lane_id() % TILE; }
DEVICE int fragment_tile() { return lane_id() / TILE; }
#else
DEVICE int fragment_row(int part) { return lane_id() / 4 + 8 * part; }
DEVICE int fragment_tile() { return lane_id() % 4; }
#endif

// Sums of a 16 x 16 tile: `element[c][r]` is at (accumulator_row(r), accumulator_column(c)).
#if defined(__AMDGCN__)
constexpr int ACCUMULATOR_COLUMNS = 1;
constexpr int ACCUMULATOR_ROWS = 4;

DEVICE int accumulator_row(int r) { return lane_id() / TILE * 4 + r; }
DEVICE int accumulator_column(int c) { return lane_id() % TILE; }
#else
constexpr int ACCUMULATOR_COLUMNS = 4;
constexpr int ACCUMULATOR_ROWS = 2;

DEVICE int accumulator_row(int r) { return lane_id() / 4 + 8 * r; }
DEVICE int accumulator_column(int c) { return c / 2 * 8 + lane_id() % 4 * 2 + c % 2; }
#endif

// Accumulator columns of one part of the fragment that holds the columns.
constexpr int PART_COLUMNS = ACCUMULATOR_COLUMNS / FRAGMENT_PARTS;

struct Accumulator {
  float element[ACCUMULATOR_COLUMNS][ACCUMULATOR_ROWS] = {};
};

// Fragment `index` along the columns of 16 rows that start at `band` in a tiled 16 x 16 matrix.
DEVICE Fragment load_tiled_fragment(const uint8 *band, int index) {
  Fragment fragment;
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
    fragment.part[part] = *(const uint32x4 *)(band + index * (TILE * FRAGMENT_COLUMNS) +
                                              fragment_tile() * (TILE * TILE) + fragment_row(part) * TILE);
  return fragment;
}

// Fragment `index` along the columns of row-major rows; `row[part]` starts the row `fragment_row(part)`.
DEVICE Fragment load_row_fragment(const uint8 *const (&row)[FRAGMENT_PARTS], int index) {
  Fragment fragment;
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
    fragment.part[part] = *(const uint32x4 *)(row[part] + index * FRAGMENT_COLUMNS + fragment_tile() * TILE);
  return fragment;
}

// sums[i][j] += sum over the 64 columns of a[i] * b[j], for the 16 rows i of `a` and the PART_ROWS rows j that one
// part of a fragment holds; `sums` are the ACCUMULATOR_COLUMNS / FRAGMENT_PARTS columns of that part.
#if defined(__AMDGCN__)
DEVICE void multiply_part(const Fragment &a, uint32x4 b, float (*sums)[ACCUMULATOR_ROWS]) {
  float4 total = {sums[0][0], sums[0][1], sums[0][2], sums[0][3]};
  auto eight_bytes = [](uint32x4 sixteen, int half) {
    return long(sixteen[2 * half] | uint64(sixteen[2 * half + 1]) << 32);
  };
#pragma unroll
  for (int half = 0; half < 2; ++half)
    total = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(eight_bytes(a.part[0], half), eight_bytes(b, half), total,
                                                       0, 0, 0);
#pragma unroll
  for (int r = 0; r < ACCUMULATOR_ROWS; ++r) sums[0][r] = total[r];
}
#elif defined(__NVPTX__)
// Four E4M3 values as float16, which holds them exactly.
DEVICE uint32x2 to_float16x4(uint32 packed) {
  uint32 low, high;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }"
      : "=r"(low), "=r"(high)
      : "r"(packed));
  return {low, high};
}

// Hopper's mma.sync turns FP8 into float16 itself, and adds every product apart. Doing so here lets the compiler
// convert an operand once for all its products, and the unit add them up.
DEVICE void multiply_part(const Fragment &a, uint32x4 b, float (*sums)[ACCUMULATOR_ROWS]) {
#pragma unroll
  for (int word = 0; word < 4; ++word) {
    uint32x2 upper = to_float16x4(a.part[0][word]), lower = to_float16x4(a.part[1][word]);
    uint32x2 columns = to_float16x4(b[word]);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[0][0]), "+f"(sums[1][0]), "+f"(sums[0][1]), "+f"(sums[1][1])
        : "r"(upper[0]), "r"(lower[0]), "r"(upper[1]), "r"(lower[1]), "r"(columns[0]), "r"(columns[1]));
  }
}
#endif

// sums[i][j] += sum over the 64 columns of a[i] * b[j], for the 16 rows of both.
DEVICE void multiply(const Fragment &a, const Fragment &b, Accumulator &sums) {
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
    multiply_part(a, b.part[part], sums.element + part * PART_COLUMNS);
}

// Sum of `value` over the lanes that hold the same columns of an accumulator; every one of them gets it.
DEVICE float sum_over_accumulator_rows(float value) {
  constexpr int FIRST_DISTANCE = WAVE_SIZE == 64 ? TILE : 4;
#pragma unroll
  for (int distance = FIRST_DISTANCE; distance < WAVE_SIZE; distance *= 2)
    value += wave_read(value, lane_id() ^ distance);
  return value;
}
