// Cache slots of each row's largest logits in ascending position: one workgroup per row.
//
// The choice is made among values in registers. Those are the whole of a row of up to 8192 logits. Of a longer one a
// sample gives a bound that most likely the wanted and few others reach; one more reading marks those that do in a
// bitmap, and they are gathered in order. Where the logits defeat this (too many equal, not finite, a bound that
// fails), radix selection decides instead.
#include "layouts.h"
#include "linear_select.h"
#include "pipeline.h"
#include "radix_select.h"
#include "shared_base.h"
#include "uniform.h"

constexpr int CHUNK = 8192, CHUNK_BATCHES = CHUNK / (THREADS * 4);
constexpr int LIST = 4096, LIST_BATCHES = LIST / (THREADS * 4);
constexpr int WORD = 32;
constexpr int AHEAD = 16;    // loads that a thread has in flight while a row is marked
constexpr int WORDS = 6400;  // of the bitmap: for the longest context of GLM-5.1
static_assert(WORDS * WORD % (AHEAD * WAVE_SIZE) == 0);  // a run's marks lie in the words

struct Shared {
  union {
    LinearShared<THREADS> linear;
    alignas(16) uint32 words[WORDS];
  };
  int list[LIST];
  OfWaves<THREADS, int> of_wave;
};

// A row's logits, its cache pages, and where its slots go.
struct Row {
  const float *logits;
  int length;
  const int *pages;
  int *slots;
  int topk;
};

DEVICE int slot_of(const Row &row, int position) {
  return row.pages[position / PAGE_TOKENS] * PAGE_TOKENS + position % PAGE_TOKENS;
}

// Marks of the positions that a wave reads at once.
constexpr int RUN = AHEAD * WAVE_SIZE;
struct alignas(16) RunMarks {
  LaneMask of[AHEAD];
};

// Marks in `marks` the row's positions from `start` on where `condition(logit, position)` holds: of a WHOLE run, or of
// those before `end`.
template <bool WHOLE, typename Condition>
DEVICE void mark_run(const Row &row, int start, int end, RunMarks &marks, Condition condition) {
  float value[AHEAD];
  RunMarks own;
#pragma unroll
  for (int i = 0; i < AHEAD; ++i) {
    int position = start + i * WAVE_SIZE + lane_id();
    value[i] = WHOLE || position < end ? row.logits[position] : 0;
  }
#pragma unroll
  for (int i = 0; i < AHEAD; ++i) {
    int position = start + i * WAVE_SIZE + lane_id();
    own.of[i] = ballot((WHOLE || position < end) && condition(value[i], position));
  }
  if (lane_id() == 0) marks = own;
}

// Marks in the words, of which the first holds `first`, the row's positions from `first` to `end` where
// `condition(logit, position)` holds.
template <typename Condition>
DEVICE void mark_where(const Row &row, int first, int end, Shared &shared, Condition condition) {
  for (int start = first + uniform_wave_id() * RUN; start < end; start += AHEAD * THREADS) {
    RunMarks &marks = *(RunMarks *)(shared.words + (start - first) / WORD);
    if (start + RUN <= end) mark_run<true>(row, start, end, marks, condition);
    else mark_run<false>(row, start, end, marks, condition);
  }
}

// Calls `visit(place, position)` for the positions marked in the words for those from `first` to `end`, the lowest of
// which has place 0; returns how many they are.
template <typename Visit> DEVICE int visit_marked(int first, int end, Shared &shared, Visit visit) {
  int words = divide_up(end - first, WORD), own = divide_up(words, THREADS), from = thread_id() * own;
  int upto = from + own < words ? from + own : words;
  int marked = 0, total;
  barrier();
  for (int i = from; i < upto; ++i) marked += __builtin_popcount(shared.words[i]);
  int place = inclusive_sum_of_threads<THREADS>(marked, total, shared.of_wave) - marked;
  for (int i = from; i < upto; ++i)
    for (uint32 word = shared.words[i]; word; word &= word - 1, ++place)
      visit(place, first + i * WORD + __builtin_ctz(word));
  return total;
}

// Stores the slots of the topk largest of the row's logits, whatever they are.
DEVICE void store_by_radix(const Row &row, Shared &shared) {
  constexpr int MOST = WORDS * WORD;
  KeyThreshold threshold = radix_select(row.logits, row.length, row.topk, shared.linear.histogram);
  int rank = 0;
  for (int first = 0; first < row.length; first += MOST) {
    int end = row.length - first < MOST ? row.length : first + MOST;
    barrier();  // the histogram in the words' place, or the words, may still be read
    mark_where(row, first, end, shared, [=](float value, int position) INLINE {
      return chooses(threshold, value, position);
    });
    rank += visit_marked(first, end, shared, [&](int place, int position) {
      row.slots[rank + place] = slot_of(row, position);
    });
  }
}

// Stores the slots of the topk largest of the first `count` values; `slot_of_held(batch, j)` gives the slot of one.
// False, and nothing stored, where the values do not allow it.
template <int BATCHES, typename SlotOfHeld>
DEVICE bool store_largest(const Row &row, float4 (&values)[BATCHES], int count, SlotOfHeld slot_of_held,
                          Shared &shared) {
  Range own = range_of_first(values, count);
  Cut cut;
  HeldBin bin[BATCHES][4];
  if (!find_cut(values, own, count, row.topk, shared.linear, bin, cut)) return false;
  HeldMask chosen = chosen_of(values, bin, cut, shared.linear);
  uint32 rank[BATCHES];
  ranks_of_held<THREADS>(chosen, rank, shared.of_wave);
  if (row.topk > LIST) {
    for_held<BATCHES>([&](int i, int j) INLINE {
      if (chosen & held_bit(i, j)) row.slots[rank[i]++] = slot_of_held(i, j);
    });
    return true;
  }
  // Through the list's memory, of which nothing else is needed any more: threads next to each other store together.
  for_held<BATCHES>([&](int i, int j) INLINE {
    if (chosen & held_bit(i, j)) shared.list[rank[i]++] = slot_of_held(i, j);
  });
  barrier();
  for (int i = thread_id(); i < row.topk; i += THREADS) row.slots[i] = shared.list[i];
  return true;
}

// A value that the topk largest of a row longer than a chunk reach, and most likely not many others: estimated from a
// sample, some five standard deviations low. Infinite if the sample gives none.
DEVICE float bound_of(const Row &row, Shared &shared) {
  constexpr int LINE = 32, LINES = CHUNK / LINE;
  float4 values[CHUNK_BATCHES];
#pragma unroll
  for (int i = 0; i < CHUNK_BATCHES; ++i) {
    int index = held_index<CHUNK_BATCHES>(i);
    values[i] = *(const float4 *)(row.logits + index / LINE * (row.length / LINE) / LINES * LINE + index % LINE);
  }
  Range own;
  for_held<CHUNK_BATCHES>([&](int i, int j) INLINE { extend(own, values[i][j]); });
  int expected = uint64(row.topk) * CHUNK / row.length, wanted = expected + expected / 4 + 24;
  static_assert(LIST + LIST / 4 + 24 <= CHUNK - MOST_BELOW<CHUNK_BATCHES, THREADS>);  // so that they are in the bins
  LinearBins bins;
  HeldBin bin[CHUNK_BATCHES][4];
  if (!start_bins(own, Beyond::BOTH, shared.linear, bins)) return __builtin_inff();
  put_in_bins(values, bins, bin, shared.linear);
  return lower_end(bins, find_bin(shared.linear.histogram, wanted).index);
}

// As `store_largest` for a row longer than a chunk, from a list of most likely few more than the topk largest.
DEVICE bool store_listed(const Row &row, Shared &shared) {
  if (row.topk > LIST || row.length > WORDS * WORD) return false;
  float bound = bound_of(row, shared);
  if (!(bound < __builtin_inff())) return false;
  barrier();  // the histogram, in the words' place, may still be read
  mark_where(row, 0, row.length, shared, [=](float value, int) INLINE { return !(value < bound); });
  int listed = visit_marked(0, row.length, shared, [&](int place, int position) {
    if (place < LIST) shared.list[place] = position;
  });
  barrier();
  if (listed < row.topk || listed > LIST) return false;
  float4 values[LIST_BATCHES];
  int slots[LIST_BATCHES][4];
  for_held<LIST_BATCHES>([&](int i, int j) INLINE {
    int index = held_index<LIST_BATCHES>(i) + j, position = index < listed ? shared.list[index] : 0;
    values[i][j] = row.logits[position];
    slots[i][j] = slot_of(row, position);
  });
  return store_largest(row, values, listed, [&](int i, int j) INLINE { return slots[i][j]; }, shared);
}

// As `store_largest` for a row of up to a chunk, whose first `CHUNK` logits and their pages are given.
DEVICE bool store_of_chunk(const Row &row, float4 (&values)[CHUNK_BATCHES], const int (&pages)[CHUNK_BATCHES],
                           Shared &shared) {
  auto slot = [&](int i, int j) INLINE {
    return pages[i] * PAGE_TOKENS + held_index<CHUNK_BATCHES>(i) % PAGE_TOKENS + j;
  };
  return store_largest(row, values, row.length, slot, shared);
}

DEVICE void topk_slots(Workgroup workgroup, Shared &memory, const float *logits, const int *lengths,
                       const int *block_table, int *slots, int width, int topk) {
  Shared &shared = based(memory);
  uint32 index = workgroup.x, pages_of_row = uint32(width) / PAGE_TOKENS;
  int length = lengths[index];
  Row row = {logits + row_major_offset(index, 0, uint32(width)), 0,
             block_table + row_major_offset(index, 0, pages_of_row), slots + row_major_offset(index, 0, uint32(topk)),
             topk};
  // The first logits are on their way while the length is: most rows have no others.
  float4 values[CHUNK_BATCHES];
  int pages[CHUNK_BATCHES];
#pragma unroll
  for (int i = 0; i < CHUNK_BATCHES; ++i) {
    int position = held_index<CHUNK_BATCHES>(i);
    bool exists = position < width;
    values[i] = exists ? *(const float4 *)(row.logits + position) : float4(ABSENT);
    pages[i] = exists ? row.pages[position / PAGE_TOKENS] : 0;
  }
  schedule_boundary();
  row.length = uniform(length < width ? length : width);
  if (row.length <= topk) {
    for (int rank = thread_id(); rank < topk; rank += THREADS)
      row.slots[rank] = rank < row.length ? slot_of(row, rank) : -1;
    return;
  }
  bool stored = row.length > CHUNK ? store_listed(row, shared) : store_of_chunk(row, values, pages, shared);
  if (!stored) store_by_radix(row, shared);
}
