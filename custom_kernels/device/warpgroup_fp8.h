// Products of FP8 matrices by a warpgroup: four waves and the `wgmma` of NVIDIA's sm_90.
//
// The operands are those of warpgroup_matrix.h, unconverted. The unit adds FP8 products up with some 14 bits: sums over
// a group of 128 columns are taken from it and added up as float32, as everybody does who uses it for block-scaled
// weights.
#pragma once

#include "warpgroup_matrix.h"

#if defined(__NVPTX__)
// A group of the right operand: a row's 128 bytes lie together, neighbouring rows' in another order, so that neither a
// row's pieces of 16 bytes nor a piece of eight rows meet a bank twice.
template <int ROWS> struct alignas(1024) RowsGroup {
  uint32x4 rows[ROWS][COLUMN_TILES];

  MEMBER uint32x4 &piece(int row, int tile) { return rows[row][tile ^ row % 8]; }
};

// sums = products over one group, 64 x 128 by N x 128; they may be read after `finish_groups` and `pin`. A step takes two
// column tiles. The unit is told, in units of 16 bytes, where the group lies, how far the next eight rows are, and that
// pieces are exchanged in 128 bytes.
#define SUMS_OF(i) "=&f"(sums[i][0][0]), "=&f"(sums[i][0][1]), "=&f"(sums[i][1][0]), "=&f"(sums[i][1][1])
#define MULTIPLY_TILES(N, NAMES, STEP, ADD)                                                                           \
  "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" NAMES "}, {%[a" #STEP "], %[b" #STEP "], %[c" #STEP    \
  "], %[d" #STEP "]}, right, " ADD ", 1, 1;\n\t"
#define NEXT_TILES "add.s64 right, right, %[step];\n\t"
#define WORDS_OF(STEP)                                                                                                \
  [a##STEP] "r"(left[2 * STEP][0]), [b##STEP] "r"(left[2 * STEP][1]), [c##STEP] "r"(left[2 * STEP + 1][0]),           \
      [d##STEP] "r"(left[2 * STEP + 1][1])
#define DEFINE_MULTIPLY_GROUP(N, NAMES, ...)                                                                          \
  DEVICE void start_group(const LeftRows &left, const RowsGroup<N> &rows, WarpgroupSums<N> &sums) {                   \
    uint64 pieces = place_for_engines(&rows) | uint64(1) << 16 | uint64(64) << 32 | uint64(1) << 62;                  \
    asm volatile(                                                                                                     \
        "{ .reg .pred add, begin; .reg .b64 right; setp.ne.b32 begin, 0, 0; setp.eq.b32 add, 0, 0;\n\t"               \
        "mov.b64 right, %[pieces];\n\twgmma.fence.sync.aligned;\n\t" MULTIPLY_TILES(N, NAMES, 0, "begin") NEXT_TILES  \
        MULTIPLY_TILES(N, NAMES, 1, "add") NEXT_TILES MULTIPLY_TILES(N, NAMES, 2, "add") NEXT_TILES                   \
        MULTIPLY_TILES(N, NAMES, 3, "add") "wgmma.commit_group.sync.aligned; }"                                       \
        : __VA_ARGS__                                                                                                 \
        : WORDS_OF(0), WORDS_OF(1), WORDS_OF(2), WORDS_OF(3), [pieces] "l"(pieces), [step] "n"(2)                     \
        : "memory");                                                                                                  \
  }
DEFINE_MULTIPLY_GROUP(8, FIRST_SUMS_8, SUMS_OF(0))
DEFINE_MULTIPLY_GROUP(16, FIRST_SUMS_16, SUMS_OF(0), SUMS_OF(1))
DEFINE_MULTIPLY_GROUP(32, FIRST_SUMS_32, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3))
DEFINE_MULTIPLY_GROUP(48, FIRST_SUMS_48, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5))
DEFINE_MULTIPLY_GROUP(64, FIRST_SUMS_64, SUMS_OF(0), SUMS_OF(1), SUMS_OF(2), SUMS_OF(3), SUMS_OF(4), SUMS_OF(5),
                      SUMS_OF(6), SUMS_OF(7))
#undef SUMS_OF
#undef MULTIPLY_TILES
#undef NEXT_TILES
#undef WORDS_OF
#undef DEFINE_MULTIPLY_GROUP

// All groups that have been started are multiplied.
DEVICE void finish_groups() { asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory"); }
#endif
