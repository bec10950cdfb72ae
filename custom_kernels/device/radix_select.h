// Exact selection of the k largest of a row of float32 by radix, whatever the values: no element is dropped, ties go
// by position. Reads the row once per digit.
#pragma once

#include "histogram.h"

constexpr int DIGIT_BITS = 11;
static_assert(BINS == 1 << DIGIT_BITS);

// Keys order as the floats do. Both zeros are equal, and any NaN is above everything.
DEVICE uint32 ordered_key(float value) {
  uint32 bits = __builtin_bit_cast(uint32, value + 0.0f);
  if (value != value) return 0xFFFFFFFF;
  return bits >> 31 ? ~bits : bits | 0x80000000;
}

// Chosen are the elements with a key above `key`, and those with `key` up to `last_position`.
struct KeyThreshold {
  uint32 key;
  int last_position;
};

DEVICE bool chooses(KeyThreshold threshold, float value, int position) {
  uint32 key = ordered_key(value);
  return key > threshold.key || (key == threshold.key && position <= threshold.last_position);
}

// The smallest of the `wanted` largest words of a row's elements, with as many high bits as tell them from the others
// and zeros below. `word_of(value, position, word)` gives an element's word, or false for one that does not count.
// Of the elements with those high bits there are `tied`, and `wanted` becomes how many of them are.
template <int THREADS, typename WordOf>
DEVICE uint32 radix_threshold(const float *row, int length, int &wanted, int &tied, Histogram<THREADS> &histogram,
                              WordOf word_of) {
  uint32 threshold = 0, known = 0;
  for (int shift = 32 - DIGIT_BITS;; shift = shift > DIGIT_BITS ? shift - DIGIT_BITS : 0) {
    clear_bins(histogram);
    barrier();
#pragma unroll 4
    for (int position = thread_id(); position < length; position += THREADS) {
      uint32 word;
      if (word_of(row[position], position, word) && ((word ^ threshold) & known) == 0)
        add_to_bin(histogram, ~word >> shift & (BINS - 1));
    }
    Bin bin = find_bin(histogram, wanted);
    threshold |= uint32(BINS - 1 - bin.index) << shift;
    wanted -= bin.before;
    tied = bin.count;
    if (shift == 0 || tied == wanted) return threshold;
    known = ~0u << shift;
  }
}

// Which the `wanted` largest of the `length` first elements of `row` are; wanted < length.
template <int THREADS>
DEVICE KeyThreshold radix_select(const float *row, int length, int wanted, Histogram<THREADS> &histogram) {
  int tied;
  uint32 key = radix_threshold(row, length, wanted, tied, histogram, [](float value, int, uint32 &word) {
    word = ordered_key(value);
    return true;
  });
  if (tied == wanted) return {key - 1, -1};  // all from `key` on, which is above 0: even minus infinity's is
  uint32 last = radix_threshold(row, length, wanted, tied, histogram, [=](float value, int position, uint32 &word) {
    word = ~uint32(position);
    return ordered_key(value) == key;
  });
  return {key, int(~last)};
}
