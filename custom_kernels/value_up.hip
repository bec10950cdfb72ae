// Attention output times the value half of kv_b, per head: ROW_LANES lanes share one weight row of ROW_LANES * 16 bytes,
// decode it once and use it for ROWS activation rows.
#include "bf16.h"
#include "fp8.h"
#include "layouts.h"
#include "reduce.h"

constexpr int THREADS = 256;
constexpr int ROWS = 4;
constexpr int ELEMENTS = 16;
constexpr int LATENT = ROW_LANES * ELEMENTS;

struct ValueWeight {
  const uint8 *values;
  const float *scales;
  int rows_per_head, first_row;
};

DEVICE void value_tile(const bf16 *attention, const ValueWeight &weight, bf16 *result, int rows, int heads, int dims,
                       int dim, int head, int first_row) {
  int column = lane_id() % ROW_LANES * ELEMENTS;
  int weight_row = head * weight.rows_per_head + weight.first_row + (dim < dims ? dim : dims - 1);
  float values[ELEMENTS];
  from_fp8x16(*(const uint32x4 *)(weight.values + int64(weight_row) * LATENT + column), values);
  float scale = weight.scales[weight_row / GROUP * divide_up(LATENT, GROUP) + column / GROUP];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    // Rows past the end repeat the last one, so that every lane takes part in the sum.
    int64 row = first_row + r < rows ? first_row + r : rows - 1;
    const bf16 *source = attention + (row * heads + head) * LATENT + column;
    float low[8], high[8], sum = 0;
    load_bf16x8(source, low);
    load_bf16x8(source + 8, high);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += low[i] * (values[i] * scale);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += high[i] * (values[i + 8] * scale);
    sum = reduce_lanes<Sum, ROW_LANES>(sum);
    if (column == 0 && dim < dims && first_row + r < rows) result[(row * heads + head) * dims + dim] = to_bf16(sum);
  }
}

DEVICE void value_up(Workgroup workgroup, const bf16 *attention, const uint8 *weight, const float *weight_scales,
                     bf16 *result, int rows, int heads, int rows_per_head, int nope_dim) {
  int dim = workgroup.x * (THREADS / ROW_LANES) + thread_id() / ROW_LANES;
  value_tile(attention, {weight, weight_scales, rows_per_head, nope_dim}, result, rows, heads,
             rows_per_head - nope_dim, dim, workgroup.y, workgroup.z * ROWS);
}
