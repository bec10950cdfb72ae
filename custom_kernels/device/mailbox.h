// Words of results that workgroups of one phase post, and the one thread that reads each takes: it sees for itself when a
// word is there. That is sooner than when a whole phase has ended, and costs neither side a fence.
//
// A word in global memory is posted as its complement; zero, before the first launch and once it has been taken, is none.
#pragma once

#include "bf16.h"
#include "grid.h"
#include "pipeline.h"

// `word` is a float, or two of 16 bits.
DEVICE void post(void *place, uint32 word) {
  // The one word whose complement is zero is not a number, nor are two; so are others.
  store_relaxed((uint32 *)place, word == 0xFFFFFFFF ? ~0x7FFF7FFFu : ~word);
}
DEVICE void post(void *place, float value) { post(place, __builtin_bit_cast(uint32, value)); }

// A word of the result of `workgroup`.
template <typename Word> DEVICE void store_or_post(const Workgroup &workgroup, void *place, Word word) {
  if (workgroup.posts) post(place, word);
  else *(Word *)place = word;
}

// Waits for the number.
DEVICE float take(float *place) {
  uint32 word;
  while ((word = load_relaxed((const uint32 *)place)) == 0) pause();
  store_relaxed((uint32 *)place, 0);
  return __builtin_bit_cast(float, ~word);
}

// Whether all four words have been posted.
DEVICE bool all_posted(uint32x4 words) { return words[0] && words[1] && words[2] && words[3]; }

// Waits for the eight numbers.
DEVICE void take_bf16x8(bf16 *place, float (&values)[8]) {
  uint32x4 words = load_relaxed((const uint32x4 *)place);
  while (!all_posted(words)) {
    pause();
    words = load_relaxed((const uint32x4 *)place);
  }
  store_relaxed((uint32x4 *)place, uint32x4{});
  unpack_bf16x8(~words, values);
}
