// The k-th largest of values in workgroup memory, by bins of equal width between the smallest and the largest: such
// bins spread out values that radix digits leave together, so that one pass mostly does.
#pragma once

#include "histogram.h"

// Smallest and largest of some values; the largest is infinite if any is infinite or not a number.
struct Range {
  float low = __builtin_inff(), high = -__builtin_inff();
};

DEVICE void extend(Range &range, float value) {
  range.low = value < range.low ? value : range.low;
  range.high = value > range.high ? value : range.high;
  if (!(__builtin_fabsf(value) < __builtin_inff())) range.high = __builtin_inff();
}

// Chosen are the values above `value`, and those equal to it up to `last_position`.
struct Threshold {
  float value;
  int last_position;
};

DEVICE bool chooses(Threshold threshold, float value, int position) {
  return value > threshold.value || (value == threshold.value && position <= threshold.last_position);
}

template <int THREADS> struct LinearShared {
  Histogram<THREADS> histogram;
  float lows[THREADS / WAVE_SIZE], highs[THREADS / WAVE_SIZE];
  float candidate[THREADS];
  int candidate_position[THREADS];
  int candidates;
  Threshold threshold;
};

// The range of what all threads of the workgroup have.
template <int THREADS> DEVICE Range range_of_workgroup(Range range, LinearShared<THREADS> &shared) {
  range.low = reduce_lanes<Minimum, WAVE_SIZE>(range.low);
  range.high = reduce_lanes<Maximum, WAVE_SIZE>(range.high);
  barrier();  // an earlier call's ranges may still be read
  if (lane_id() == 0) shared.lows[wave_id()] = range.low, shared.highs[wave_id()] = range.high;
  barrier();
#pragma unroll
  for (int wave = 0; wave < THREADS / WAVE_SIZE; ++wave) {
    range.low = Minimum::combine(range.low, shared.lows[wave]);
    range.high = Maximum::combine(range.high, shared.highs[wave]);
  }
  return range;
}

// Bins of equal width over a range, from the largest value down: a power of two, that gives more than half of all BINS.
struct LinearBins {
  Range range;
  int exponent;  // of the range's width, as float32 stores it
};

DEVICE LinearBins bins_over(Range range) {
  return {range, uniform(__builtin_bit_cast(int, range.high - range.low) >> 23)};
}

// Whether the bins tell values apart: the range is neither empty, nor so narrow or wide that its arithmetic overflows.
DEVICE bool usable(LinearBins bins) { return bins.exponent > 16 && bins.exponent < 255; }

DEVICE float power_of_two(int stored_exponent) { return __builtin_bit_cast(float, stored_exponent << 23); }

// The value at the end of bin `index`, or less.
DEVICE float lower_end(LinearBins bins, int index) {
  static_assert(BINS == 2048);
  return bins.range.high - (index + 1) * power_of_two(bins.exponent - 10);
}

// Bin of `value`, -1 outside the range. The larger of two values of the range is never in the later bin.
DEVICE int bin_of(LinearBins bins, float value) {
  float bin = (bins.range.high - value) * power_of_two(254 + 10 - bins.exponent);
  bin = bin < BINS - 1 ? bin : BINS - 1;
  // Adding 2^23 leaves the number, rounded, in the lowest mantissa bits: faster than a conversion.
  int index = __builtin_bit_cast(int, bin + 0x1p23f) - __builtin_bit_cast(int, 0x1p23f);
  return value >= bins.range.low && value <= bins.range.high ? index : -1;
}

// The bin with the `wanted`-th largest of those of the `count` values that lie in the bins' range.
template <int THREADS>
DEVICE Bin bin_of_rank(const float *values, int count, LinearBins bins, int wanted, Histogram<THREADS> &histogram) {
  clear_bins(histogram);
  barrier();
#pragma unroll 8
  for (int i = thread_id(); i < count; i += THREADS) {
    int bin = bin_of(bins, values[i]);
    if (bin >= 0) add_to_bin(histogram, bin);
  }
  return find_bin(histogram, wanted);
}

// Sets `threshold` so that the `wanted` largest of those of the `count` values that lie in `range` are chosen, equal
// ones by position. False, and no threshold, where the range is not finite or too many values are equal.
template <int THREADS, typename PositionOf>
DEVICE bool linear_select(const float *values, int count, Range range, int wanted, LinearShared<THREADS> &shared,
                          Threshold &threshold, PositionOf position_of) {
  Bin bin;
  LinearBins bins;
  for (;;) {
    bins = bins_over(range);
    if (!usable(bins)) return false;
    bin = bin_of_rank(values, count, bins, wanted, shared.histogram);
    wanted -= bin.before;
    if (bin.count <= THREADS) break;
    Range members;
    for (int i = thread_id(); i < count; i += THREADS)
      if (bin_of(bins, values[i]) == bin.index) extend(members, values[i]);
    range = range_of_workgroup(members, shared);
  }
  if (thread_id() == 0) shared.candidates = 0;
  barrier();
#pragma unroll 4
  for (int i = thread_id(); i < count; i += THREADS)
    if (bin_of(bins, values[i]) == bin.index) {
      int place = add_shared(shared.candidates, 1);
      shared.candidate[place] = values[i];
      shared.candidate_position[place] = position_of(i);
    }
  barrier();
  if (thread_id() < bin.count) {
    Threshold own = {shared.candidate[thread_id()], shared.candidate_position[thread_id()]};
    int chosen = 0;  // of the candidates, were this one the threshold
    for (int i = 0; i < bin.count; ++i) chosen += chooses(own, shared.candidate[i], shared.candidate_position[i]);
    if (chosen == wanted) shared.threshold = own;
  }
  barrier();
  threshold = shared.threshold;
  return true;
}
