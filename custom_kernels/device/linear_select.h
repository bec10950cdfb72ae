// The k-th largest of values that a workgroup's threads hold in registers, by bins of equal width: such bins spread out
// values that radix digits leave together, so that one pass mostly does. A few values may be far from all others (the
// scores of a row's first tokens and its own): one lane of each wave may go beyond the bins on either side.
//
// The values have an order: each wave holds a run of them, in BATCHES batches, of which every lane has 4 in a row.
#pragma once

#include "histogram.h"
#include "pipeline.h"

constexpr float ABSENT = -__builtin_inff();  // held instead of a value

// Place in the order of the first of this thread's 4 values of a batch.
template <int BATCHES> DEVICE int held_index(int batch) {
  return ((wave_id() * BATCHES + batch) * WAVE_SIZE + lane_id()) * 4;
}

// Calls `visit(batch, j)` for each of the values that a thread holds.
template <int BATCHES, typename Visit> DEVICE void for_held(Visit visit) {
#pragma unroll
  for (int i = 0; i < BATCHES; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j) visit(i, j);
}

// A bit for each value that a thread holds, the first one's lowest.
typedef uint32 HeldMask;

DEVICE HeldMask held_bit(int batch, int j) { return HeldMask(1) << (batch * 4 + j); }

// Of the values in all threads' masks: how many are before this thread's of each batch. `of_wave` must not be in use.
template <int THREADS, int BATCHES>
DEVICE void ranks_of_held(HeldMask mask, uint32 (&rank)[BATCHES], OfWaves<THREADS, int> &of_wave) {
  uint32 of_earlier_batches = 0;
#pragma unroll
  for (int i = 0; i < BATCHES; i += 2) {  // a wave's counts of two batches fit in a word
    uint32 second = i + 1 < BATCHES ? mask >> (4 * i + 4) & 15 : 0;
    uint32 counts = __builtin_popcount(mask >> 4 * i & 15) + (__builtin_popcount(second) << 16);
    uint32 upto = inclusive_sum_of_wave(counts), before = upto - counts;
    uint32 totals = wave_read(int(upto), WAVE_SIZE - 1);
    rank[i] = of_earlier_batches + (before & 0xFFFF);
    of_earlier_batches += totals & 0xFFFF;
    if (i + 1 < BATCHES) rank[i + 1] = of_earlier_batches + (before >> 16);
    of_earlier_batches += totals >> 16;
  }
  if (lane_id() == 0) of_wave[wave_id()] = of_earlier_batches;
  barrier();
  uint32 of_earlier_waves = reduce_wave<Sum>(lane_id() < wave_id() ? of_wave[lane_id()] : 0);
#pragma unroll
  for (int i = 0; i < BATCHES; ++i) rank[i] += of_earlier_waves;
}

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

// The range of this thread's of the first `count` values held; the others become absent.
template <int BATCHES> DEVICE Range range_of_first(float4 (&values)[BATCHES], int count) {
  Range own;
  if (held_index<BATCHES>(BATCHES - 1) + 4 <= count) {
    for_held<BATCHES>([&](int i, int j) INLINE { extend(own, values[i][j]); });
  } else {
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (held_index<BATCHES>(i) + j < count) extend(own, values[i][j]);
      else values[i][j] = ABSENT;
    });
  }
  return own;
}

// Chosen are the values above `value`, and those equal to it up to `last` in the order.
struct Threshold {
  float value;
  int last;
};

DEVICE bool chooses(Threshold threshold, float value, int index) {
  return (value > threshold.value) | ((value == threshold.value) & (index <= threshold.last));  // without branches
}

constexpr int MEMBERS = 128;  // that a cut has at most

template <int THREADS> struct LinearShared {
  Histogram<THREADS> histogram;
  OfWaves<THREADS, int> lows, highs;
  Threshold member[MEMBERS], threshold;
  int members;
};

// Integers that order as floats do that are numbers; the same makes them floats again.
static constexpr int in_order(int bits) { return bits ^ (bits >> 31 & 0x7FFFFFFF); }

// Which values may be beyond a range: none, or of each wave those of one lane above it, or also of one below it.
enum class Beyond { NONE, ABOVE, BOTH };

// The largest of the lanes' values (by Maximum; the smallest by Minimum), if one is `left_out` without a lane that has
// it. `none` is what a lane has that has no value.
template <typename Operation> DEVICE int reduce_leaving_out(int value, bool left_out, int none) {
  int result = reduce_wave<Operation>(value);
  bool is_left_out = left_out & (lane_id() == __builtin_ctzll(ballot(value == result)));
  return reduce_wave<Operation>(is_left_out ? none : value);
}

// The range of what all threads of the workgroup have, without what is `beyond`. Not finite if any value is not. There
// must be a barrier between two calls.
template <int THREADS> DEVICE Range range_of_workgroup(Range range, Beyond beyond, LinearShared<THREADS> &shared) {
  constexpr int WAVES = THREADS / WAVE_SIZE, INFINITE = 0x7F800000, MINUS_INFINITE = in_order(INFINITE | 1 << 31);
  bool finite = !ballot(range.zero != 0);
  int low = in_order(__builtin_bit_cast(int, range.low)), high = in_order(__builtin_bit_cast(int, range.high));
  if (beyond == Beyond::NONE) {
    low = reduce_wave<Minimum>(low);
    high = reduce_wave<Maximum>(high);
  } else {
    low = reduce_leaving_out<Minimum>(low, beyond == Beyond::BOTH, INFINITE);
    high = reduce_leaving_out<Maximum>(high, true, MINUS_INFINITE);
  }
  if (lane_id() == 0) shared.lows[wave_id()] = low, shared.highs[wave_id()] = finite ? high : INFINITE;
  barrier();
  low = reduce_wave<Minimum>(shared.lows[lane_id() % WAVES]);
  high = reduce_wave<Maximum>(shared.highs[lane_id() % WAVES]);
  return {__builtin_bit_cast(float, in_order(low)), __builtin_bit_cast(float, in_order(high))};
}

// A bin as the place of its count in bytes, four times its index.
typedef int HeldBin;

template <int THREADS> DEVICE void add_to_bin_at(Histogram<THREADS> &histogram, HeldBin bin) {
  add_shared(*(int *)((uint8 *)histogram.count + bin), 1);
}

// Bins of equal width over a range, from the largest value down: more than half of all BINS.
struct LinearBins {
  float high;
  int exponent;  // of the range's width, as float32 stores it
};

DEVICE LinearBins bins_over(Range range) {
  return {range.high, uniform(__builtin_bit_cast(int, range.high - range.low) >> 23)};
}

// Whether the bins tell values apart: the range is neither empty, nor so narrow or wide that its arithmetic overflows.
DEVICE bool usable(LinearBins bins) { return bins.exponent > 16 && bins.exponent < 255; }

DEVICE float power_of_two(int stored_exponent) { return __builtin_bit_cast(float, stored_exponent << 23); }

constexpr float LAST_BIN_OF_ALL = float(BINS - 1) / BINS;  // so that the end of the range is not rounded beyond it

// Bin of `value`: of two values the larger is never in the later bin. Those above the range are in the first bin, those
// far enough below it in the lane's own one beyond all others, as what is absent.
DEVICE HeldBin bin_of(LinearBins bins, float value) {
  static_assert(BINS == 1 << 11);
  // From 2^23 on float32 has no fraction, and its lowest bits are a whole number: here four times the bin.
  constexpr uint32 FIRST = __builtin_bit_cast(uint32, 0x1p23f), MASK = (2 * BINS - 1) * 4;
  float scale = power_of_two(254 + 12 - bins.exponent) * LAST_BIN_OF_ALL;
  float below = __builtin_fmaxf(bins.high - value, 0.0f);
  uint32 bits = __builtin_bit_cast(uint32, __builtin_fmaf(below, scale, 0x1p23f));
  uint32 absent = FIRST + uncounted_bin() * 4;
  return HeldBin((bits < absent ? bits : absent) & MASK);
}

// A value that no value of bin `index` is below.
DEVICE float lower_end(LinearBins bins, int index) {
  return bins.high - (index + 2) * power_of_two(bins.exponent - 10);
}

// Makes bins over the range of all threads' `own`, without what is `beyond`. False where that range is no use.
template <int THREADS>
DEVICE bool start_bins(Range own, Beyond beyond, LinearShared<THREADS> &shared, LinearBins &bins) {
  clear_bins(shared.histogram);
  bins = bins_over(range_of_workgroup(own, beyond, shared));
  return usable(bins);
}

// How many of the values held are at most below bins that some may be beyond.
template <int BATCHES, int THREADS> constexpr int MOST_BELOW = THREADS / WAVE_SIZE * BATCHES * 4;

template <int BATCHES, int THREADS>
DEVICE void put_in_bins(const float4 (&values)[BATCHES], LinearBins bins, HeldBin (&bin)[BATCHES][4],
                        LinearShared<THREADS> &shared) {
  for_held<BATCHES>([&](int i, int j) INLINE {
    bin[i][j] = bin_of(bins, values[i][j]);
    add_to_bin_at(shared.histogram, bin[i][j]);
  });
}

// Where the `wanted` largest of some values end: those in earlier bins are among them, and the `wanted` largest of the
// `members` of `bin`.
struct Cut {
  HeldBin bin;
  int members, wanted;
};

DEVICE Cut cut_at(Bin found, int wanted) { return {found.index * 4, found.count, wanted - found.before}; }

// Finds the cut of the `count` values held, with at most MEMBERS; `own` is the range of this thread's. False where
// their range is not finite or too many are equal.
template <int BATCHES, int THREADS>
DEVICE bool find_cut(const float4 (&values)[BATCHES], Range own, int count, int wanted,
                     LinearShared<THREADS> &shared, HeldBin (&bin)[BATCHES][4], Cut &cut) {
  constexpr HeldBin BEFORE = -1, AFTER = BINS * 4;
  LinearBins bins;
  if (thread_id() == 0) shared.members = 0;
  // What is below the bins is not counted: none of those wanted may be there.
  Beyond beyond = count - wanted >= MOST_BELOW<BATCHES, THREADS> ? Beyond::BOTH : Beyond::ABOVE;
  if (!start_bins(own, beyond, shared, bins)) return false;
  put_in_bins(values, bins, bin, shared);
  for (cut = cut_at(find_bin(shared.histogram, wanted), wanted); cut.members > MEMBERS;
       cut = cut_at(find_bin(shared.histogram, cut.wanted), cut.wanted)) {
    own = {};
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (bin[i][j] == cut.bin) extend(own, values[i][j]);
    });
    if (!start_bins(own, Beyond::NONE, shared, bins)) return false;
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (bin[i][j] == cut.bin) add_to_bin_at(shared.histogram, bin[i][j] = bin_of(bins, values[i][j]));
      else bin[i][j] = bin[i][j] < cut.bin ? BEFORE : AFTER;
    });
  }
  return true;
}

// Which of the values held are chosen: those before the cut, and of its members the largest, equal ones in order.
template <int BATCHES, int THREADS>
DEVICE HeldMask chosen_of(const float4 (&values)[BATCHES], const HeldBin (&bin)[BATCHES][4], const Cut &cut,
                          LinearShared<THREADS> &shared) {
  HeldMask chosen = 0;
  bool any = false;  // member: few threads have one
#pragma unroll
  for (int k = BATCHES * 4 - 1; k >= 0; --k) {
    chosen = chosen << 1 | uint32(bin[k / 4][k % 4] - cut.bin) >> 31;
    any |= bin[k / 4][k % 4] == cut.bin;
  }
  if (any) {
    int own = 0;
    for_held<BATCHES>([&](int i, int j) INLINE { own += bin[i][j] == cut.bin; });
    int place = add_shared(shared.members, own);
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (bin[i][j] == cut.bin) shared.member[place++] = {values[i][j], held_index<BATCHES>(i) + j};
    });
  }
  barrier();
  for (int member = uniform_wave_id(); member < cut.members; member += THREADS / WAVE_SIZE) {
    Threshold threshold = shared.member[member];
    int count = 0;  // of the members that are chosen, were this one the threshold
    for (int first = 0; first < cut.members; first += WAVE_SIZE) {
      int other = first + lane_id();
      bool exists = other < cut.members;
      Threshold value = shared.member[exists ? other : 0];
      count += __builtin_popcountll(ballot(exists & chooses(threshold, value.value, value.last)));
    }
    if (count == cut.wanted && lane_id() == 0) shared.threshold = threshold;
  }
  barrier();
  if (any) {
    Threshold threshold = shared.threshold;
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (bin[i][j] == cut.bin && chooses(threshold, values[i][j], held_index<BATCHES>(i) + j))
        chosen |= held_bit(i, j);
    });
  }
  return chosen;
}
