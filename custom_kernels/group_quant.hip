// Group quantisation of rows; a workgroup takes ROW_COLUMNS of their elements at a time, be they of one row or of
// several. ROWS, COLUMNS and WORKGROUPS are compile-time constants.
#include "pipeline.h"
#include "row.h"

constexpr int TURNS = divide_up(divide_up(ROWS * COLUMNS, ROW_COLUMNS), WORKGROUPS);

DEVICE void group_quant(Workgroup workgroup, const bf16 *x, uint8 *values, float *scales) {
  float columns[TURNS][COLUMNS_PER_LANE] = {};
  auto first_of = [&](int turn) INLINE { return int64(turn * WORKGROUPS + workgroup.x) * ROW_COLUMNS + row_column(0); };
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn)
    if (first_of(turn) < int64(ROWS) * COLUMNS) load_bf16x8(x + first_of(turn), columns[turn]);
  schedule_boundary();
#pragma unroll
  for (int turn = 0; turn < TURNS; ++turn) {
    int64 first = first_of(turn), row = first / COLUMNS;
    quantize_group(columns[turn], values + first,
                   scales + group_major_scale_offset(row, first % COLUMNS / GROUP, ROWS), row < ROWS);
  }
}
