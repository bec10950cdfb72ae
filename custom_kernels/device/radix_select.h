// Exact selection of the k largest of a row of float32, by radix: no element is dropped, ties go by position.
#pragma once

#include "reduce.h"

constexpr int SELECT_THREADS = 1024;
constexpr int SELECT_AT_ONCE = 4;  // positions a thread reads in one 16-byte load
constexpr int SELECT_STRIDE = SELECT_THREADS * SELECT_AT_ONCE;
constexpr int DIGIT_BITS = 11;
constexpr int DIGITS = 1 << DIGIT_BITS;

// The keys of a row's k largest elements: above `threshold`, and the first `equal` that equal it.
struct Selection {
  uint32 threshold;
  int equal;
};

struct SelectShared {
  int histogram[DIGITS];
  int found_digit, found_before, found_count;
  OfWaves<SELECT_THREADS, int> of_wave;
};

// Keys order as the floats do. Both zeros are equal, and any NaN is above everything.
DEVICE uint32 ordered_key(float value) {
  uint32 bits = __builtin_bit_cast(uint32, value + 0.0f);
  if (value != value) return 0xFFFFFFFF;
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

// histogram[i] = how many of the keys that agree with `threshold` in the `known` bits have the digit i from
// the top, DIGITS - 1 - i.
DEVICE void count_digits(const float *row, int length, uint32 threshold, uint32 known, int shift,
                         int *histogram) {
  for (int digit = thread_id(); digit < DIGITS; digit += SELECT_THREADS) histogram[digit] = 0;
  barrier();
  for (int start = thread_id() * SELECT_AT_ONCE; start < length; start += SELECT_STRIDE) {
    float4 values = *(const float4 *)(row + start);
#pragma unroll
    for (int i = 0; i < SELECT_AT_ONCE; ++i) {
      uint32 key = ordered_key(values[i]);
      if (start + i < length && ((key ^ threshold) & known) == 0)
        __scoped_atomic_fetch_add(&histogram[~key >> shift & (DIGITS - 1)], 1, __ATOMIC_RELAXED,
                                  __MEMORY_SCOPE_WRKGRP);
    }
  }
  barrier();
}

// Which keys are the `wanted` largest of the `length` first elements of `row`; wanted < length. The row is
// 16-byte aligned and may be read up to the next multiple of four elements.
DEVICE Selection select_largest(const float *row, int length, int wanted, SelectShared &shared) {
  uint32 threshold = 0, known = 0;
  for (int shift = 32 - DIGIT_BITS;; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
    count_digits(row, length, threshold, known, shift, shared.histogram);
    // Thread t owns entries 2t and 2t + 1; the scan runs from the largest digit down.
    int first = 2 * thread_id(), total;
    int of_first = shared.histogram[first], of_second = shared.histogram[first + 1];
    int upto = inclusive_sum_of_workgroup<SELECT_THREADS>(of_first + of_second, total, shared.of_wave);
    int before = upto - of_first - of_second;
    if (before < wanted && wanted <= upto) {
      bool in_first = wanted <= before + of_first;
      shared.found_digit = DIGITS - 1 - (in_first ? first : first + 1);
      shared.found_before = in_first ? before : before + of_first;
      shared.found_count = in_first ? of_first : of_second;
    }
    barrier();
    threshold |= uint32(shared.found_digit) << shift;
    wanted -= shared.found_before;
    if (shift == 0 || shared.found_count == wanted) return {threshold, wanted};
    known = ~0u << shift;
  }
}

// Calls visit(position, rank) for each of the `count` selected elements; ranks ascend with position from 0.
template <typename Visit>
DEVICE void visit_selected(const float *row, int length, int count, Selection selection, SelectShared &shared,
                           Visit visit) {
  int above_before = 0, equal_before = 0;
  for (int block = 0; block < length; block += SELECT_STRIDE) {
    int start = block + thread_id() * SELECT_AT_ONCE;
    bool above[SELECT_AT_ONCE] = {}, equal[SELECT_AT_ONCE] = {};
    int counts = 0;  // above in the low half, equal in the high half: a block has at most 4096 of each
    if (start < length) {
      float4 values = *(const float4 *)(row + start);
#pragma unroll
      for (int i = 0; i < SELECT_AT_ONCE; ++i) {
        uint32 key = ordered_key(values[i]);
        above[i] = start + i < length && key > selection.threshold;
        equal[i] = start + i < length && key == selection.threshold;
        counts += above[i] + (equal[i] << 16);
      }
    }
    int totals;
    int before = inclusive_sum_of_workgroup<SELECT_THREADS>(counts, totals, shared.of_wave) - counts;
    int above_rank = above_before + (before & 0xFFFF), equal_rank = equal_before + (before >> 16);
#pragma unroll
    for (int i = 0; i < SELECT_AT_ONCE; ++i) {
      int equal_taken = equal_rank < selection.equal ? equal_rank : selection.equal;
      if (above[i] || (equal[i] && equal_rank < selection.equal)) visit(start + i, above_rank + equal_taken);
      above_rank += above[i];
      equal_rank += equal[i];
    }
    above_before += totals & 0xFFFF;
    equal_before += totals >> 16;
    if (above_before + (equal_before < selection.equal ? equal_before : selection.equal) == count) return;
  }
}
