// Exact top-k of one row of logits, lowest position first among equals, as cache slots in ascending position.
// A radix select finds the k-th largest key in four passes over eight bits each; one more pass collects.
#include "cpu.h"

// Keys order as the floats do, NaN above all; both zeros are equal.
static inline uint32 ordered_key(float value) {
  uint32 bits = float_to_bits(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0xFFFFFFFF;
  if (bits == 0x80000000) bits = 0;
  return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}

extern "C" void topk_slots(BUFFER(logits), BUFFER(lengths), BUFFER(block_table), BUFFER(slots), int64 width,
                           int64 topk, int64 row, int64, int64) {
  const float *scores = POINTER(const float, logits) + row * width;
  const int *pages = POINTER(const int, block_table) + row * (width / PAGE_TOKENS);
  int *selected = POINTER(int, slots) + row * topk;
  int64 length = POINTER(const int, lengths)[row];

  uint32 threshold = 0;
  int64 wanted = topk;  // of the elements that share the threshold's known high bits
  for (int shift = 24; length > topk && shift >= 0; shift -= 8) {
    int64 histogram[256];
    for (int i = 0; i < 256; ++i) histogram[i] = 0;
    uint32 known = shift == 24 ? 0 : ~0u << (shift + 8);
    for (int64 i = 0; i < length; ++i) {
      uint32 key = ordered_key(scores[i]);
      if (((key ^ threshold) & known) == 0) ++histogram[key >> shift & 0xFF];
    }
    int digit = 255;
    for (; histogram[digit] < wanted; --digit) wanted -= histogram[digit];
    threshold |= uint32(digit) << shift;
  }

  int64 count = 0;
  for (int64 i = 0; i < length && count < topk; ++i) {
    if (length > topk) {
      uint32 key = ordered_key(scores[i]);
      if (key < threshold || (key == threshold && wanted-- <= 0)) continue;
    }
    selected[count++] = pages[i / PAGE_TOKENS] * PAGE_TOKENS + int(i % PAGE_TOKENS);
  }
  while (count < topk) selected[count++] = -1;
}
