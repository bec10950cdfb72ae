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

// sums[i][j] += sum over the 64 columns of a[i] * b[j], for the rows i of `a` and j of `b`.
#if defined(__AMDGCN__)
DEVICE void multiply(const Fragment &a, const Fragment &b, Accumulator &sums) {
  float4 total = {sums.element[0][0], sums.element[0][1], sums.element[0][2], sums.element[0][3]};
  auto eight_bytes = [](const Fragment &fragment, int half) {
    return long(fragment.part[0][2 * half] | uint64(fragment.part[0][2 * half + 1]) << 32);
  };
#pragma unroll
  for (int half = 0; half < 2; ++half)
    total = __builtin_amdgcn_mfma_f32_16x16x32_fp8_fp8(eight_bytes(a, half), eight_bytes(b, half), total, 0,
                                                       0, 0);
#pragma unroll
  for (int r = 0; r < ACCUMULATOR_ROWS; ++r) sums.element[0][r] = total[r];
}
#elif defined(__NVPTX__)
DEVICE void multiply(const Fragment &a, const Fragment &b, Accumulator &sums) {
#pragma unroll
  for (int half = 0; half < 2; ++half)
#pragma unroll
    for (int part = 0; part < FRAGMENT_PARTS; ++part) {
      auto &left = sums.element[2 * part], &right = sums.element[2 * part + 1];
      asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(left[0]), "+f"(right[0]), "+f"(left[1]), "+f"(right[1])
          : "r"(a.part[0][2 * half]), "r"(a.part[1][2 * half]), "r"(a.part[0][2 * half + 1]),
            "r"(a.part[1][2 * half + 1]), "r"(b.part[part][2 * half]), "r"(b.part[part][2 * half + 1]));
    }
}
#endif

// Sum of `value` over the lanes that hold the same columns of an accumulator; every one of them gets it.
DEVICE float sum_over_accumulator_rows(float value) {
  constexpr int FIRST_DISTANCE = WAVE_SIZE == 64 ? TILE : 4;
#pragma unroll
  for (int distance = FIRST_DISTANCE; distance < WAVE_SIZE; distance *= 2)
    value += wave_read(value, lane_id() ^ distance);
  return value;
}
