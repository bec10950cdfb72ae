// Products of the indexer's query heads with cached keys, on the matrix unit of a wave.
//
// A wave keeps a row's query and multiplies it with tiles of 16 tokens as they lie in a preshuffled page. AMD's unit
// takes FP8. NVIDIA's `mma` of sm_90 converts FP8 operands to float16 before each use, so there the query is converted
// once, and a key once for all heads; float16 holds every E4M3 value, so the products are the same.
#pragma once

#include "matrix.h"

constexpr int HEAD_FRAGMENTS = INDEXER_HEAD_DIM / FRAGMENT_COLUMNS;

#if defined(__AMDGCN__)
using QueryFragment = Fragment;

DEVICE QueryFragment query_fragment(const Fragment &fragment) { return fragment; }

// products[tile] += heads[tile] * keys, over the 64 columns.
template <int HEAD_TILES>
DEVICE void multiply_heads(const QueryFragment (&heads)[HEAD_TILES], const Fragment &keys,
                           Accumulator (&products)[HEAD_TILES]) {
#pragma unroll
  for (int tile = 0; tile < HEAD_TILES; ++tile) multiply(heads[tile], keys, products[tile]);
}
#elif defined(__NVPTX__)
// Four FP8 values of a word as float16, two to a word.
struct Halves {
  uint32 low, high;
};

DEVICE Halves to_halves(uint32 packed) {
  Halves halves;
  asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h; }"
      : "=r"(halves.low), "=r"(halves.high)
      : "r"(packed));
  return halves;
}

struct QueryFragment {
  Halves word[FRAGMENT_PARTS][4];
};

DEVICE QueryFragment query_fragment(const Fragment &fragment) {
  QueryFragment converted;
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
#pragma unroll
    for (int i = 0; i < 4; ++i) converted.word[part][i] = to_halves(fragment.part[part][i]);
  return converted;
}

// products[tile] += heads[tile] * keys, over the 64 columns.
template <int HEAD_TILES>
DEVICE void multiply_heads(const QueryFragment (&heads)[HEAD_TILES], const Fragment &keys,
                           Accumulator (&products)[HEAD_TILES]) {
#pragma unroll
  for (int part = 0; part < FRAGMENT_PARTS; ++part)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      Halves key = to_halves(keys.part[part][i]);
#pragma unroll
      for (int tile = 0; tile < HEAD_TILES; ++tile) {
        auto &left = products[tile].element[2 * part], &right = products[tile].element[2 * part + 1];
        const Halves &upper = heads[tile].word[0][i], &lower = heads[tile].word[1][i];
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(left[0]), "+f"(right[0]), "+f"(left[1]), "+f"(right[1])
            : "r"(upper.low), "r"(lower.low), "r"(upper.high), "r"(lower.high), "r"(key.low), "r"(key.high));
      }
    }
}
#endif

// Of the 16 tokens of a tile, the one whose score `sum_of_own_token` gives this lane; several lanes get the same one,
// and the first of them stores it. `sums` holds this lane's share, as an accumulator deals out rows and columns.
#if defined(__AMDGCN__)
DEVICE int own_token() { return accumulator_column(0); }

DEVICE bool stores_own_token() { return lane_id() < TILE; }

DEVICE float sum_of_own_token(const float (&sums)[ACCUMULATOR_COLUMNS]) { return sum_over_accumulator_rows(sums[0]); }

// max(0, value); NaN stays.
DEVICE float positive_part(float value) { return value < 0.0f ? 0.0f : value; }
#elif defined(__NVPTX__)
DEVICE int own_token() { return (lane_id() >> 4) * 8 + lane_id() % 4 * 2 + (lane_id() >> 3 & 1); }

DEVICE bool stores_own_token() { return (lane_id() & 4) == 0; }

// Lanes exchange halves of their columns, so that each step has fewer to add.
DEVICE float sum_of_own_token(const float (&sums)[ACCUMULATOR_COLUMNS]) {
  bool right = lane_id() & 16, odd = lane_id() & 8;
  float even_sum = (right ? sums[2] : sums[0]) + wave_read(right ? sums[0] : sums[2], lane_id() ^ 16);
  float odd_sum = (right ? sums[3] : sums[1]) + wave_read(right ? sums[1] : sums[3], lane_id() ^ 16);
  float sum = (odd ? odd_sum : even_sum) + wave_read(odd ? even_sum : odd_sum, lane_id() ^ 8);
  return sum + wave_read(sum, lane_id() ^ 4);
}

// max(0, value); NaN stays.
DEVICE float positive_part(float value) { return __nvvm_fmax_nan_f(value, 0.0f); }
#endif
