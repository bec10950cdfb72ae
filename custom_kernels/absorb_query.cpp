// Query times the key half of kv_b: a workgroup makes 128 latent columns of one head for all rows.
#include "cpu.h"

constexpr int ROWS = 64;

extern "C" void absorb_query(BUFFER(q), BUFFER(weight), BUFFER(weight_scales), BUFFER(result), int64 rows, int64 heads,
                             int64 head_dim, int64 nope, int64 rows_per_head, int64 latent, int64 slab, int64 head,
                             int64) {
  int64 first_column = slab * GROUP, blocks = (latent + GROUP - 1) / GROUP;
  int columns = int(latent - first_column < GROUP ? latent - first_column : GROUP);
  for (int64 first_row = 0; first_row < rows; first_row += ROWS) {
    int count = int(rows - first_row < ROWS ? rows - first_row : ROWS);
    float sums[ROWS][GROUP], weights[GROUP];
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < GROUP; ++c) sums[r][c] = 0;
    for (int64 n = 0; n < nope; ++n) {
      int64 weight_row = head * rows_per_head + n;
      float scale = POINTER(const float, weight_scales)[weight_row / GROUP * blocks + slab];
      decode_fp8(POINTER(const uint8, weight) + weight_row * latent + first_column, weights, columns);
      for (int c = 0; c < columns; ++c) weights[c] *= scale;
      for (int r = 0; r < count; ++r) {
        float query = decode_bf16(POINTER(const uint16, q)[((first_row + r) * heads + head) * head_dim + n]);
        for (int c = 0; c < columns; ++c) sums[r][c] += query * weights[c];
      }
    }
    for (int r = 0; r < count; ++r)
      for (int c = 0; c < columns; ++c)
        POINTER(uint16, result)[((first_row + r) * heads + head) * latent + first_column + c] = encode_bf16(sums[r][c]);
  }
}
