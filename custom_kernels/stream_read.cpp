// Exclusive or of one piece, from piece `first` on. PIECE_WORDS: 32-bit words of a piece.
#include "cpu.h"

typedef uint32 uint32x8 __attribute__((ext_vector_type(8)));

extern "C" void stream_read(BUFFER(data), BUFFER(before), BUFFER(result), int64 first, int64 piece, int64, int64) {
  const uint32x8 *vectors = POINTER(const uint32x8, data) + (first + piece) * (PIECE_WORDS / 8);
  // Four chains: one alone would wait for itself.
  uint32x8 combined[4] = {};
  for (int i = 0; i < PIECE_WORDS / 8; i += 4)
    for (int chain = 0; chain < 4; ++chain) combined[chain] ^= vectors[i + chain];
  uint32x8 all = combined[0] ^ combined[1] ^ combined[2] ^ combined[3];
  uint32 word = 0;
  for (int i = 0; i < 8; ++i) word ^= all[i];
  POINTER(uint32, result)[piece] = word ^ *POINTER(const uint32, before);
}
