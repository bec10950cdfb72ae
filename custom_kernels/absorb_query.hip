// Query times the key half of kv_b, per head: a workgroup makes COLUMNS latent columns of one head for ROWS rows.
// NOPE is the head's contracted size. Weight rows are contiguous in the latent, so lanes read them side by side.
#include "bf16.h"
#include "fp8.h"
#include "layouts.h"

constexpr int THREADS = 64;
constexpr int COLUMNS_PER_THREAD = 4;
constexpr int ROWS = 4;

struct KeyWeight {
  const uint8 *values;
  const float *scales;
  int rows_per_head, latent;
};

struct Shared {
  float query[ROWS][NOPE];
};

DEVICE void absorb_tile(Shared &shared, const bf16 *q, const KeyWeight &weight, bf16 *result, int rows, int heads, int head_dim,
                        int column, int head, int first_row) {
  auto &query = shared.query;
  for (int i = thread_id(); i < ROWS * NOPE; i += THREADS) {
    int row = first_row + i / NOPE;
    query[i / NOPE][i % NOPE] = row < rows ? from_bf16(q[(int64(row) * heads + head) * head_dim + i % NOPE]) : 0;
  }
  barrier();
  if (column >= weight.latent) return;

  float sums[ROWS][COLUMNS_PER_THREAD] = {};
  int first_weight_row = head * weight.rows_per_head, blocks = divide_up(weight.latent, GROUP);
  for (int n = 0; n < NOPE; ++n) {
    int64 weight_row = first_weight_row + n;
    float4 values = from_fp8x4(*(const uint32 *)(weight.values + weight_row * weight.latent + column));
    float scale = weight.scales[weight_row / GROUP * blocks + column / GROUP];
#pragma unroll
    for (int c = 0; c < COLUMNS_PER_THREAD; ++c)
#pragma unroll
      for (int r = 0; r < ROWS; ++r) sums[r][c] += query[r][n] * (values[c] * scale);
  }
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (first_row + r >= rows) break;
    bf16 *target = result + (int64(first_row + r) * heads + head) * weight.latent + column;
    uint32x2 packed = {to_bf16(sums[r][0]) | uint32(to_bf16(sums[r][1])) << 16,
                       to_bf16(sums[r][2]) | uint32(to_bf16(sums[r][3])) << 16};
    *(uint32x2 *)target = packed;
  }
}

DEVICE void absorb_query(Workgroup workgroup, Shared &shared, const bf16 *q, const uint8 *weight, const float *weight_scales,
                         bf16 *result, int rows, int heads, int head_dim, int rows_per_head, int latent) {
  int column = (workgroup.x * THREADS + thread_id()) * COLUMNS_PER_THREAD;
  absorb_tile(shared, q, {weight, weight_scales, rows_per_head, latent}, result, rows, heads, head_dim, column,
              workgroup.y, workgroup.z * ROWS);
}
