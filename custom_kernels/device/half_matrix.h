// 16 x 16 tiles of products of 16-bit floats with float32 sums, on the matrix unit of a wave, from FP8 operands.
//
// A half fragment is 16 rows x 16 columns of bfloat16 or float16. A lane holds, in each of its parts, four
// consecutive columns of row `fragment_row(part)`, from column 4 * `fragment_tile()` on. `multiply_part_*` sums over
// the 16 columns; sums lie as those of FP8 fragments do (matrix.h). Every FP8 value is exact in both formats.
#pragma once

#include "bf16.h"
#include "fp8.h"
#include "matrix.h"

constexpr int HALF_COLUMNS = 16;
constexpr int HALF_COLUMNS_PER_LANE = 4;

struct HalfFragment {
  uint32x2 part[FRAGMENT_PARTS];
};

// Four bytes, the lowest first, of the eight that `a` (0 to 3) and `b` (4 to 7) hold.
template <int FIRST, int SECOND, int THIRD, int FOURTH> DEVICE uint32 select_bytes(uint32 a, uint32 b) {
#if defined(__AMDGCN__)
  return __builtin_amdgcn_perm(b, a, FIRST | SECOND << 8 | THIRD << 16 | FOURTH << 24);
#else
  uint32 selected;
  asm("prmt.b32 %0, %1, %2, %3;"
      : "=r"(selected)
      : "r"(a), "r"(b), "n"(FIRST | SECOND << 4 | THIRD << 8 | FOURTH << 12));
  return selected;
#endif
}

// Two float32 as a bfloat16 pair, without rounding: the lower halves are dropped.
DEVICE uint32 upper_halves(float first, float second) {
  return select_bytes<2, 3, 6, 7>(__builtin_bit_cast(uint32, first), __builtin_bit_cast(uint32, second));
}

#if defined(__AMDGCN__)
typedef __fp16 half2 __attribute__((ext_vector_type(2)));
typedef __fp16 half4 __attribute__((ext_vector_type(4)));
typedef short short4 __attribute__((ext_vector_type(4)));

// float32 rounded to float16, to nearest even; the first in the lower half.
DEVICE uint32 to_float16x2(float low, float high) {
  return __builtin_bit_cast(uint32, half2{__fp16(low), __fp16(high)});
}

DEVICE float2 from_float16x2(uint32 packed) {
  half2 pair = __builtin_bit_cast(half2, packed);
  return {float(pair[0]), float(pair[1])};
}

// Four FP8 values as float16, the lowest byte first. The conversion by way of float32 is exact.
DEVICE uint32x2 to_float16x4(uint32 packed) {
  float4 values = from_fp8x4(packed);
  return {__builtin_bit_cast(uint32, __builtin_amdgcn_cvt_pkrtz(values[0], values[1])),
          __builtin_bit_cast(uint32, __builtin_amdgcn_cvt_pkrtz(values[2], values[3]))};
}

// sums[i][j] += sum over the 16 columns of a[i] * b[j], for the 16 rows i of `a` and the PART_ROWS rows j of a part
// `b`; `sums` are that part's PART_COLUMNS columns.
DEVICE void multiply_part_bf16(const HalfFragment &a, uint32x2 b, float (*sums)[ACCUMULATOR_ROWS]) {
  float4 total = {sums[0][0], sums[0][1], sums[0][2], sums[0][3]};
  total = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(__builtin_bit_cast(short4, a.part[0]),
                                                    __builtin_bit_cast(short4, b), total, 0, 0, 0);
#pragma unroll
  for (int r = 0; r < ACCUMULATOR_ROWS; ++r) sums[0][r] = total[r];
}

DEVICE void multiply_part_f16(const HalfFragment &a, uint32x2 b, float (*sums)[ACCUMULATOR_ROWS]) {
  float4 total = {sums[0][0], sums[0][1], sums[0][2], sums[0][3]};
  total = __builtin_amdgcn_mfma_f32_16x16x16f16(__builtin_bit_cast(half4, a.part[0]), __builtin_bit_cast(half4, b),
                                                total, 0, 0, 0);
#pragma unroll
  for (int r = 0; r < ACCUMULATOR_ROWS; ++r) sums[0][r] = total[r];
}
#elif defined(__NVPTX__)
DEVICE uint32 to_float16x2(float low, float high) {
  uint32 packed;
  // The instruction's first operand goes to the upper half.
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

DEVICE float2 from_float16x2(uint32 packed) {
  float low, high;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
      : "=f"(low), "=f"(high)
      : "r"(packed));
  return {low, high};
}

DEVICE void multiply_part_bf16(const HalfFragment &a, uint32x2 b, float (*sums)[ACCUMULATOR_ROWS]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0][0]), "+f"(sums[1][0]), "+f"(sums[0][1]), "+f"(sums[1][1])
      : "r"(a.part[0][0]), "r"(a.part[1][0]), "r"(a.part[0][1]), "r"(a.part[1][1]), "r"(b[0]), "r"(b[1]));
}

DEVICE void multiply_part_f16(const HalfFragment &a, uint32x2 b, float (*sums)[ACCUMULATOR_ROWS]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sums[0][0]), "+f"(sums[1][0]), "+f"(sums[0][1]), "+f"(sums[1][1])
      : "r"(a.part[0][0]), "r"(a.part[1][0]), "r"(a.part[0][1]), "r"(a.part[1][1]), "r"(b[0]), "r"(b[1]));
}
#endif

// Fragments of a matrix whose contracted dimension is not the contiguous one. A lane loads, for each of four
// contracted rows, a word of four neighbouring columns; the words' bytes become WORD_TILES fragments. A wave's words
// lie side by side, WORD_COLUMNS columns in all, word `lane_word()` in a lane.
constexpr int WORD_TILES = HALF_COLUMNS_PER_LANE / FRAGMENT_PARTS;
constexpr int WORD_COLUMNS = PART_ROWS * HALF_COLUMNS_PER_LANE;

DEVICE int lane_word() { return fragment_row(0); }

// Column, among the WORD_COLUMNS, that row `row` of fragment `tile` holds.
DEVICE int word_column(int tile, int row) {
  return row % PART_ROWS * HALF_COLUMNS_PER_LANE + tile * FRAGMENT_PARTS + row / PART_ROWS;
}

DEVICE void bf16_from_words(const uint32 (&words)[4], HalfFragment (&fragments)[WORD_TILES]) {
  float4 values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) values[i] = from_fp8x4(words[i]);
#pragma unroll
  for (int byte = 0; byte < 4; ++byte)
    fragments[byte / FRAGMENT_PARTS].part[byte % FRAGMENT_PARTS] = {
        upper_halves(values[0][byte], values[1][byte]), upper_halves(values[2][byte], values[3][byte])};
}

DEVICE void f16_from_words(const uint32 (&words)[4], HalfFragment (&fragments)[WORD_TILES]) {
  // Two rows' bytes of a column are put side by side first: their pair is converted at once.
  uint32x2 pairs[2][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    pairs[i][0] = to_float16x4(select_bytes<0, 4, 1, 5>(words[2 * i], words[2 * i + 1]));
    pairs[i][1] = to_float16x4(select_bytes<2, 6, 3, 7>(words[2 * i], words[2 * i + 1]));
  }
#pragma unroll
  for (int byte = 0; byte < 4; ++byte)
    fragments[byte / FRAGMENT_PARTS].part[byte % FRAGMENT_PARTS] = {pairs[0][byte / 2][byte % 2],
                                                                    pairs[1][byte / 2][byte % 2]};
}
