// Residual sum and its RMSNorm: a workgroup reads a whole row of COLUMNS columns, and stores one of its PARTS parts.
#include "row.h"

constexpr int CHUNKS = divide_up(COLUMNS, ROW_COLUMNS);

DEVICE void add_rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *residual,
                                     const bf16 *weight, uint8 *values, float *scales, bf16 *normed, bf16 *total,
                                     int rows, int epsilon) {
  auto part = RowPart<COLUMNS, PARTS>::at(workgroup.y);
  int64 first = row_major_offset(workgroup.x, 0, COLUMNS);
  Row<CHUNKS> row, other;
  Row<part.CHUNKS> stored, weights;
  load_row<CHUNKS>(x + first, COLUMNS, row);
  load_row<CHUNKS>(residual + first, COLUMNS, other);
#pragma unroll
  for (int i = 0; i < part.CHUNKS; ++i) load_chunk(weight, COLUMNS, part.chunk(i), weights[i]);
#pragma unroll
  for (int c = 0; c < CHUNKS; ++c)
#pragma unroll
    for (int i = 0; i < COLUMNS_PER_LANE; ++i) row[c][i] += other[c][i];
#pragma unroll
  for (int i = 0; i < part.CHUNKS; ++i) {
    select_chunk<CHUNKS>(row, part.chunk(i), stored[i]);
    if (part.has(i)) store_chunk(stored[i], COLUMNS, part.chunk(i), total + first);
  }
  float factor = norm_factor<CHUNKS>(row, COLUMNS, __builtin_bit_cast(float, epsilon), shared);
#pragma unroll
  for (int i = 0; i < part.CHUNKS; ++i) {
    if (!part.has(i)) break;
    scale_chunk(stored[i], factor, weights[i]);
    quantize_chunk(stored[i], workgroup.x, rows, COLUMNS, part.chunk(i), values, scales);
    store_chunk(stored[i], COLUMNS, part.chunk(i), normed + first);
  }
}
