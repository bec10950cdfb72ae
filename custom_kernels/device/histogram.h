// A histogram in workgroup memory, and the bin that holds the element of a given rank.
#pragma once

#include "reduce.h"
#include "uniform.h"

constexpr int BINS = 2048;

// Bin of the element sought, how many elements lie in the bins before it, and how many in it.
struct Bin {
  int index, before, count;
};

template <int THREADS> struct Histogram {
  int count[BINS + WAVE_SIZE];  // the last, one per lane, are of what does not count
  Bin found;
  OfWaves<THREADS, int> of_wave;
};

// Adds to an integer in workgroup memory; returns what was there before.
DEVICE int add_shared(int &sum, int value) {
  return __scoped_atomic_fetch_add(&sum, value, __ATOMIC_RELAXED, __MEMORY_SCOPE_WRKGRP);
}

// Sets bits of an integer in workgroup memory.
DEVICE void set_shared(uint32 &word, uint32 bits) {
  __scoped_atomic_fetch_or(&word, bits, __ATOMIC_RELAXED, __MEMORY_SCOPE_WRKGRP);
}

// The lane's bin of what does not count.
DEVICE int uncounted_bin() { return BINS + lane_id(); }

// The first `add_to_bin` needs a barrier after this.
template <int THREADS> DEVICE void clear_bins(Histogram<THREADS> &histogram) {
#pragma unroll
  for (int i = 0; i < BINS / THREADS; ++i) histogram.count[i * THREADS + thread_id()] = 0;
  if (wave_id() == 0) histogram.count[uncounted_bin()] = 0;
}

template <int THREADS> DEVICE void add_to_bin(Histogram<THREADS> &histogram, int bin) {
  add_shared(histogram.count[bin], 1);
}

// The bin that holds element number `wanted`, counted from 1 and bin 0 on; there must be so many. Every thread gets it
// once all have called, and may clear the bins.
template <int THREADS> DEVICE Bin find_bin(Histogram<THREADS> &histogram, int wanted) {
  constexpr int OWN = BINS / THREADS;
  int own[OWN], sum = 0, total;
  barrier();
#pragma unroll
  for (int i = 0; i < OWN; ++i) sum += own[i] = histogram.count[thread_id() * OWN + i];
  int before = inclusive_sum_of_threads<THREADS>(sum, total, histogram.of_wave) - sum;
#pragma unroll
  for (int i = 0; i < OWN; ++i) {
    if (before < wanted && wanted <= before + own[i]) histogram.found = {thread_id() * OWN + i, before, own[i]};
    before += own[i];
  }
  barrier();
  return {uniform(histogram.found.index), uniform(histogram.found.before), uniform(histogram.found.count)};
}
