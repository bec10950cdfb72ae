// RMSNorm, stored quantised and as bf16: a workgroup reads a whole row of COLUMNS columns, and stores one of its PARTS
// parts.
#include "row.h"

constexpr int CHUNKS = divide_up(COLUMNS, ROW_COLUMNS);

DEVICE void rms_norm_group_quant(Workgroup workgroup, RowShared &shared, const bf16 *x, const bf16 *weight,
                                 uint8 *values, float *scales, bf16 *normed, int rows, int epsilon) {
  auto part = RowPart<COLUMNS, PARTS>::at(workgroup.y);
  int64 first = row_major_offset(workgroup.x, 0, COLUMNS);
  Row<CHUNKS> row;
  Row<part.CHUNKS> weights;
  load_row<CHUNKS>(x + first, COLUMNS, row);
#pragma unroll
  for (int i = 0; i < part.CHUNKS; ++i) load_chunk(weight, COLUMNS, part.chunk(i), weights[i]);
  float factor = norm_factor<CHUNKS>(row, COLUMNS, __builtin_bit_cast(float, epsilon), shared);
#pragma unroll
  for (int i = 0; i < part.CHUNKS; ++i) {
    if (!part.has(i)) break;
    float stored[COLUMNS_PER_LANE];
    select_chunk<CHUNKS>(row, part.chunk(i), stored);
    scale_chunk(stored, factor, weights[i]);
    quantize_chunk(stored, workgroup.x, rows, COLUMNS, part.chunk(i), values, scales);
    store_chunk(stored, COLUMNS, part.chunk(i), normed + first);
  }
}
