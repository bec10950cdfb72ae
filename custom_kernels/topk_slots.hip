// Cache slots of each row's largest logits in ascending position: one workgroup per row.
//
// A row of up to 8192 logits is read once, into workgroup memory. Of a longer one a sample gives a bound that most
// likely the wanted and few others reach; one more reading lists those that do, and the choice is made in the list.
// Where the logits defeat this (too many equal, not finite, a bound that fails), radix selection decides instead.
// The chosen are marked in a bitmap, which puts them in order.
#include "layouts.h"
#include "linear_select.h"
#include "radix_select.h"
#include "uniform.h"

constexpr int THREADS = 256;
constexpr int CHUNK = 8192;
constexpr int LIST = 4096;
constexpr int WORD = 32;
constexpr int WORDS = 8192;
constexpr int BATCH = CHUNK / (THREADS * 4);  // loads of 16 bytes that a thread has in flight

struct Listed {
  float value[LIST];
  int position[LIST];
};

struct Shared {
  LinearShared<THREADS> linear;
  uint32 chunk_words[CHUNK / WORD];
  int listed;
  union {
    float chunk[CHUNK];  // where the list's values lie too
    Listed list;
    uint32 words[WORDS];
  };
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

DEVICE float4 minus_infinities() { return -__builtin_inff(); }

// The bits of a wave's consecutive positions from `start` on, a multiple of 64, where `chosen`.
DEVICE void mark_wave(uint32 *words, int start, bool chosen) {
  LaneMask mask = ballot(chosen);
  if (lane_id() == 0) *(LaneMask *)(words + start / WORD) = mask;
}

DEVICE void mark(uint32 *words, int position) {
  __scoped_atomic_fetch_or(&words[position / WORD], 1u << position % WORD, __ATOMIC_RELAXED, __MEMORY_SCOPE_WRKGRP);
}

// Marks the chosen of the row's positions from `first` to `end` in `words`, of which the first holds `first`.
DEVICE void mark_chosen(const Row &row, int first, int end, KeyThreshold threshold, uint32 *words) {
#pragma unroll 4
  for (int start = first + uniform_wave_id() * WAVE_SIZE; start < end; start += THREADS) {
    int position = start + lane_id();
    mark_wave(words, start - first, position < end && chooses(threshold, row.logits[position], position));
  }
}

// Stores the slots of the positions marked in `words` for the positions from `first` to `end`, from rank `rank` on;
// returns the rank after the last. What `ordered` has no room for is stored directly.
DEVICE int store_marked(const Row &row, const uint32 *words, int first, int end, int rank, Shared &shared) {
  int *ordered = shared.linear.histogram.count;
  int count = divide_up(end - first, WORD), own = divide_up(count, THREADS), from = thread_id() * own;
  int upto = from + own < count ? from + own : count;
  int marked = 0, total;
  barrier();
  for (int i = from; i < upto; ++i) marked += __builtin_popcount(words[i]);
  int place = inclusive_sum_of_workgroup<THREADS>(marked, total, shared.linear.histogram.of_wave) - marked;
  for (int i = from; i < upto; ++i)
    for (uint32 word = words[i]; word; word &= word - 1, ++place) {
      int position = first + i * WORD + __builtin_ctz(word);
      if (place < BINS) ordered[place] = position;
      else row.slots[rank + place] = slot_of(row, position);
    }
  barrier();
  int ordered_count = total < BINS ? total : BINS;
#pragma unroll 8
  for (int i = thread_id(); i < ordered_count; i += THREADS) row.slots[rank + i] = slot_of(row, ordered[i]);
  return rank + total;
}

// A value that the topk largest of a row longer than a chunk reach, and most likely not many others: estimated from a
// sample, some five standard deviations low. Infinite if the sample gives none.
DEVICE float bound_of(const Row &row, Shared &shared) {
  constexpr int LINE = 32, LINES = CHUNK / LINE, LANES = LINE / 4;
  Range own;
  barrier();  // the chunk may still be written
#pragma unroll
  for (int i = 0; i < BATCH; ++i) {
    int line = (i * THREADS + thread_id()) / LANES, in_line = thread_id() % LANES * 4;
    float4 values = *(const float4 *)(row.logits + line * (row.length / LINE) / LINES * LINE + in_line);
    *(float4 *)&shared.chunk[line * LINE + in_line] = values;
#pragma unroll
    for (int j = 0; j < 4; ++j) extend(own, values[j]);
  }
  LinearBins bins = bins_over(range_of_workgroup(own, shared.linear));
  if (!usable(bins)) return __builtin_inff();
  int expected = uint64(row.topk) * CHUNK / row.length, wanted = expected + expected / 4 + 24;
  Bin bin = bin_of_rank<false>(shared.chunk, CHUNK, bins, wanted < CHUNK ? wanted : CHUNK, shared.linear.histogram);
  return lower_end(bins, bin.index);
}

// Lists the positions whose logits are not below `bound`, in any order; returns how many they are, though only the
// first LIST are kept.
DEVICE int list_from(const Row &row, float bound, Shared &shared) {
  auto load = [&](int first, float4 (&values)[BATCH]) {
#pragma unroll
    for (int i = 0; i < BATCH; ++i) {
      int position = first + (i * THREADS + thread_id()) * 4;
      values[i] = minus_infinities();
      if (position < row.length) values[i] = *(const float4 *)(row.logits + position);
    }
  };
  float4 values[BATCH], next[BATCH];
  load(0, values);
  if (thread_id() == 0) shared.listed = 0;
  barrier();
  for (int first = 0; first < row.length; first += CHUNK) {
    load(first + CHUNK, next);
    uint32 reached = 0;
#pragma unroll
    for (int i = 0; i < BATCH; ++i)
#pragma unroll
      for (int j = 0; j < 4; ++j) reached |= uint32(!(values[i][j] < bound)) << (4 * i + j);
    for (; reached; reached &= reached - 1) {
      int element = __builtin_ctz(reached);
      int position = first + (element / 4 * THREADS + thread_id()) * 4 + element % 4;
      if (position >= row.length) break;
      int place = add_shared(shared.listed, 1);
      if (place < LIST) shared.list.position[place] = position;
    }
#pragma unroll
    for (int i = 0; i < BATCH; ++i) values[i] = next[i];
  }
  barrier();
  return uniform(shared.listed);
}

// Lists, with their values, most likely few more than the topk largest of a row longer than a chunk; returns how many
// they are, or 0 where a list does not do, and gives the range `own` of this thread's part.
DEVICE int list_largest(const Row &row, Range &own, Shared &shared) {
  if (row.length > WORDS * WORD) return 0;
  float bound = bound_of(row, shared);
  int listed = bound < __builtin_inff() ? list_from(row, bound, shared) : 0;
  if (listed < row.topk || listed > LIST) return 0;
  own = {};
#pragma unroll 8
  for (int i = thread_id(); i < listed; i += THREADS) {
    float value = row.logits[shared.list.position[i]];
    shared.list.value[i] = value;
    extend(own, value);
  }
  int after = listed + thread_id();
  if (thread_id() < WAVE_SIZE && after < LIST) shared.list.value[after] = -__builtin_inff();
  return listed;
}

// Marks the topk largest of a row in `chunk`, in `chunk_words`.
DEVICE void mark_in_chunk(const Row &row, const Cut &cut, Shared &shared) {
  auto &linear = shared.linear;
  Threshold threshold = threshold_of(
      shared.chunk, row.length, cut, linear, [](int i) { return i; },
      [&](int i, bool above) { mark_wave(shared.chunk_words, i - lane_id(), above); });
  int i = thread_id();
  if (i < cut.members && chooses(threshold, linear.candidate[i], linear.candidate_position[i]))
    mark(shared.chunk_words, linear.candidate_position[i]);
}

// Marks the topk largest of a list in `words`, which take the list's place.
DEVICE void mark_in_list(const Row &row, int listed, const Cut &cut, Shared &shared) {
  Threshold threshold = threshold_of(
      shared.list.value, listed, cut, shared.linear, [&](int i) { return shared.list.position[i]; },
      [](int, bool) {});
  int chosen[LIST / THREADS];
#pragma unroll
  for (int j = 0; j < LIST / THREADS; ++j) {
    int i = j * THREADS + thread_id();
    int position = i < listed ? shared.list.position[i] : -1;
    chosen[j] = i < listed && chooses(threshold, shared.list.value[i], position) ? position : -1;
  }
  barrier();
  for (int i = thread_id(); i * WORD < row.length; i += THREADS) shared.words[i] = 0;
  barrier();
#pragma unroll
  for (int j = 0; j < LIST / THREADS; ++j)
    if (chosen[j] >= 0) mark(shared.words, chosen[j]);
}

// Marks the topk largest of the row's logits; false where their values do not allow it. A row up to a chunk is in
// `chunk` and marked in `chunk_words`, a longer one in `words`. `own` is the range of this thread's part of the chunk.
DEVICE bool mark_largest(const Row &row, Range own, Shared &shared) {
  bool in_chunk = row.length <= CHUNK;
  int count = in_chunk ? row.length : list_largest(row, own, shared);
  if (count == 0) return false;
  Cut cut;  // the list's values lie where the chunk does
  Range range = range_of_workgroup(own, shared.linear);
  if (!find_cut(shared.chunk, count, range, row.topk, shared.linear, cut)) return false;
  if (in_chunk) mark_in_chunk(row, cut, shared);
  else mark_in_list(row, count, cut, shared);
  return true;
}

// The slots of the topk largest of the row's logits, of which there are more; `own` as above.
DEVICE void select_largest(const Row &row, Range own, Shared &shared) {
  constexpr int MOST = WORDS * WORD;
  bool marked = mark_largest(row, own, shared);
  uint32 *words = marked && row.length <= CHUNK ? shared.chunk_words : shared.words;
  KeyThreshold threshold = {};
  if (!marked) threshold = radix_select(row.logits, row.length, row.topk, shared.linear.histogram);
  int rank = 0;
  for (int first = 0; first < row.length; first += MOST) {
    int end = row.length - first < MOST ? row.length : first + MOST;
    barrier();  // the words, or the list in their place, may still be read
    if (!marked) mark_chosen(row, first, end, threshold, words);
    rank = store_marked(row, words, first, end, rank, shared);
  }
}

// The first chunk of the row into `chunk`, minus infinity past its length, and the range of this thread's part.
DEVICE Range load_chunk(Row &row, const int *length, int width, Shared &shared) {
  float4 values[BATCH];
#pragma unroll
  for (int i = 0; i < BATCH; ++i) {
    int position = (i * THREADS + thread_id()) * 4;
    values[i] = minus_infinities();
    if (position < width) values[i] = *(const float4 *)(row.logits + position);
  }
  // The logits are on their way while the length is: most rows have no others.
  row.length = uniform(*length < width ? *length : width);
  Range own;
#pragma unroll
  for (int i = 0; i < BATCH; ++i) {
    int position = (i * THREADS + thread_id()) * 4, inside = row.length - position;
    if (inside < 4) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j < inside) extend(own, values[i][j]);
        else values[i][j] = -__builtin_inff();
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) extend(own, values[i][j]);
    }
    *(float4 *)&shared.chunk[position] = values[i];
  }
  return own;
}

DEVICE void topk_slots(Workgroup workgroup, Shared &shared, const float *logits, const int *lengths,
                       const int *block_table, int *slots, int width, int topk) {
  int index = workgroup.x;
  Row row = {logits + row_major_offset(index, 0, width), 0,
             block_table + row_major_offset(index, 0, width / PAGE_TOKENS), slots + row_major_offset(index, 0, topk),
             topk};
  Range own = load_chunk(row, lengths + index, width, shared);
  if (row.length <= topk) {
    for (int rank = thread_id(); rank < topk; rank += THREADS)
      row.slots[rank] = rank < row.length ? slot_of(row, rank) : -1;
  } else {
    select_largest(row, own, shared);
  }
}
