// Attention query of one head, all rows: a workgroup makes 128 latent columns, or all rotated ones (the last).
// LATENT, NOPE, ROPE_DIM and ROPE_HALVES are compile-time constants.
#include "cpu_indexer.h"

constexpr int ROWS = 64;
constexpr int WIDTH = LATENT + ROPE_DIM;
constexpr int HEAD_DIM = NOPE + ROPE_DIM;
constexpr int SLABS = (LATENT + GROUP - 1) / GROUP;

extern "C" void q_absorb_rope_cat(BUFFER(q), BUFFER(weight), BUFFER(weight_scales), BUFFER(rope_table),
                                  BUFFER(positions), BUFFER(result), int64 rows, int64 heads, int64 rows_per_head,
                                  int64 slab, int64 head, int64) {
  if (slab == SLABS) {
    for (int64 row = 0; row < rows; ++row) {
      const uint16 *given = POINTER(const uint16, q) + (row * heads + head) * HEAD_DIM + NOPE;
      float turned[ROPE_DIM];
      for (int i = 0; i < ROPE_DIM; ++i) turned[i] = decode_bf16(given[i]);
      int64 position = POINTER(const int64, positions)[row];
      rotate<ROPE_DIM, !ROPE_HALVES>(turned, POINTER(const float, rope_table) + position * ROPE_DIM);
      round_to_bf16(turned, ROPE_DIM);
      for (int i = 0; i < ROPE_DIM; ++i)
        POINTER(uint8, result)[(row * heads + head) * WIDTH + LATENT + i] = encode_fp8(turned[i]);
    }
    return;
  }
  int64 first_column = slab * GROUP;
  int columns = int(LATENT - first_column < GROUP ? LATENT - first_column : GROUP);
  for (int64 first_row = 0; first_row < rows; first_row += ROWS) {
    int count = int(rows - first_row < ROWS ? rows - first_row : ROWS);
    float sums[ROWS][GROUP], weights[GROUP];
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < GROUP; ++c) sums[r][c] = 0;
    for (int64 n = 0; n < NOPE; ++n) {
      int64 weight_row = head * rows_per_head + n;
      float scale = POINTER(const float, weight_scales)[weight_row / GROUP * SLABS + slab];
      decode_fp8(POINTER(const uint8, weight) + weight_row * LATENT + first_column, weights, columns);
      for (int c = 0; c < columns; ++c) weights[c] *= scale;
      for (int r = 0; r < count; ++r) {
        float query = decode_bf16(POINTER(const uint16, q)[((first_row + r) * heads + head) * HEAD_DIM + n]);
        for (int c = 0; c < columns; ++c) sums[r][c] += query * weights[c];
      }
    }
    for (int r = 0; r < count; ++r) {
      round_to_bf16(sums[r], columns);
      uint8 *target = POINTER(uint8, result) + ((first_row + r) * heads + head) * WIDTH + first_column;
      for (int c = 0; c < columns; ++c) target[c] = encode_fp8(sums[r][c]);
    }
  }
}
