// Words of results that workgroups of one phase, or of other devices, post, and the one thread that reads each takes: it
// sees for itself when a word is there. That is sooner than when a whole phase has ended, and costs neither side a fence.
//
// A word in global memory is posted as its complement; zero, before the first launch and once it has been taken, is none.
#pragma once

#include "bf16.h"
#include "grid.h"
#include "pipeline.h"

// What is posted for `word`, a float or two of 16 bits: never zero.
DEVICE uint32 posted(uint32 word) {
  // The one word whose complement is zero is not a number, nor are two; so are others.
  return word == 0xFFFFFFFF ? ~0x7FFF7FFFu : ~word;
}

DEVICE void post(void *place, uint32 word) { store_relaxed((uint32 *)place, posted(word)); }
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

// Eight numbers, as they lie in memory.
template <Scope SCOPE> DEVICE void post_bf16x8(uint32x4 *place, uint32x4 packed) {
  uint32x4 words;
#pragma unroll
  for (int i = 0; i < 4; ++i) words[i] = posted(packed[i]);
  store_relaxed<SCOPE>(place, words);
}

// Waits for eight numbers, which are returned as they lie in memory; `words` are what has been loaded from there.
template <Scope SCOPE> DEVICE uint32x4 take_bf16x8(uint32x4 *place, uint32x4 words) {
  while (!all_posted(words)) {
    pause();
    words = load_relaxed<SCOPE>(place);
  }
  store_relaxed<SCOPE>(place, uint32x4{});
  return ~words;
}
DEVICE void take_bf16x8(bf16 *place, float (&values)[8]) {
  auto words = (uint32x4 *)place;
  unpack_bf16x8(take_bf16x8<Scope::ONE_DEVICE>(words, load_relaxed(words)), values);
}
