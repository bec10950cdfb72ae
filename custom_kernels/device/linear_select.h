// The k-th largest of values in workgroup memory, by bins of equal width between the smallest and the largest: such
// bins spread out values that radix digits leave together, so that one pass mostly does.
#pragma once

#include "histogram.h"

// Smallest and largest of some values; not finite if any value is not.
struct Range {
  float low = __builtin_inff(), high = -__builtin_inff();
  float zero = 0;  // not a number once a value is infinite or none
};

DEVICE void extend(Range &range, float value) {
  range.low = __builtin_fminf(range.low, value);
  range.high = __builtin_fmaxf(range.high, value);
  range.zero = __builtin_fmaf(value, 0.0f, range.zero);
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
  range.high = reduce_lanes<Maximum, WAVE_SIZE>(range.zero == 0 ? range.high : __builtin_inff());
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

// Bins of equal width over a range, from the largest value down: more than half of all BINS.
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

constexpr float LAST_BIN_OF_ALL = float(BINS - 1) / BINS;  // so that the end of the range is not rounded beyond it

// Bins are numbers from 2^23 on: there float32 has no fraction, and its lowest bits are the bin's index.
constexpr float FIRST_BIN = 0x1p23f;

// Bin of `value`: of two values the larger is never in the later bin. Values outside the range are before the first
// bin or in it, and after the last bin of the range or in it.
DEVICE float bin_of(LinearBins bins, float value) {
  static_assert(BINS == 1 << 11);
  return __builtin_fmaf(bins.range.high - value, power_of_two(254 + 10 - bins.exponent) * LAST_BIN_OF_ALL, FIRST_BIN);
}

DEVICE int bin_index(float bin) { return __builtin_bit_cast(int, bin) - __builtin_bit_cast(int, FIRST_BIN); }

// A value that no value of bin `index` is below.
DEVICE float lower_end(LinearBins bins, int index) {
  return bins.range.high - (index + 2) * power_of_two(bins.exponent - 10);
}

DEVICE bool in_range(LinearBins bins, float value) { return value >= bins.range.low && value <= bins.range.high; }

// The bin with the `wanted`-th largest of the `count` values; with NARROWED, of those that lie in the bins' range.
template <bool NARROWED, int THREADS>
DEVICE Bin bin_of_rank(const float *values, int count, LinearBins bins, int wanted, Histogram<THREADS> &histogram) {
  clear_bins(histogram);
  barrier();
#pragma unroll 8
  for (int i = thread_id(); i < count; i += THREADS) {
    float value = values[i];
    if (!NARROWED || in_range(bins, value))
      add_to_bin(histogram, bin_index(bin_of(bins, value)));
  }
  return find_bin(histogram, wanted);
}

// Where the `wanted` largest of some values end: values in earlier bins than `bin` are among them, and `wanted` of the
// `members` in it, which lie in `range`.
struct Cut {
  LinearBins bins;
  float bin;
  int members, wanted;
};

// Finds the cut of the `count` values, in `range`, with at most a member per thread. False where their range is not
// finite or too many are equal.
template <int THREADS>
DEVICE bool find_cut(const float *values, int count, Range range, int wanted, LinearShared<THREADS> &shared, Cut &cut) {
  cut.bins = bins_over(range);
  if (!usable(cut.bins)) return false;
  Bin found = bin_of_rank<false>(values, count, cut.bins, wanted, shared.histogram);
  for (wanted -= found.before; found.count > THREADS; wanted -= found.before) {
    Range members;
    for (int i = thread_id(); i < count; i += THREADS)
      if (in_range(cut.bins, values[i]) && bin_of(cut.bins, values[i]) == FIRST_BIN + found.index)
        extend(members, values[i]);
    cut.bins = bins_over(range_of_workgroup(members, shared));
    if (!usable(cut.bins)) return false;
    found = bin_of_rank<true>(values, count, cut.bins, wanted, shared.histogram);
  }
  cut.bin = FIRST_BIN + found.index;
  cut.members = found.count;
  cut.wanted = wanted;
  return true;
}

// Finds which of the cut's members are chosen, equal ones by position. `visit(i, above)` is called, by all lanes of a
// wave with consecutive i, for each of the `count` values, and tells which lie before the cut's bin. After the values,
// there must be minus infinities up to the next multiple of a wave's lanes.
template <int THREADS, typename PositionOf, typename Visit>
DEVICE Threshold threshold_of(const float *values, int count, Cut cut, LinearShared<THREADS> &shared,
                              PositionOf position_of, Visit visit) {
  if (thread_id() == 0) shared.candidates = 0;
  barrier();
#pragma unroll 4
  for (int start = uniform_wave_id() * WAVE_SIZE; start < count; start += THREADS) {
    int i = start + lane_id();
    float value = values[i], bin = bin_of(cut.bins, value);
    visit(i, bin < cut.bin || value > cut.bins.range.high);
    if (bin == cut.bin && in_range(cut.bins, value)) {
      int place = add_shared(shared.candidates, 1);
      shared.candidate[place] = value;
      shared.candidate_position[place] = position_of(i);
    }
  }
  barrier();
  if (thread_id() < cut.members) {
    Threshold own = {shared.candidate[thread_id()], shared.candidate_position[thread_id()]};
    int chosen = 0;  // of the candidates, were this one the threshold
    for (int i = 0; i < cut.members; ++i) chosen += chooses(own, shared.candidate[i], shared.candidate_position[i]);
    if (chosen == cut.wanted) shared.threshold = own;
  }
  barrier();
  return shared.threshold;
}
