// One row, group-quantised. COLUMNS is a compile-time constant.
#include "cpu.h"

extern "C" void group_quant(BUFFER(x), BUFFER(values), BUFFER(scales), int64 rows, int64 row, int64, int64) {
  float work[COLUMNS];
  for (int i = 0; i < COLUMNS; ++i) work[i] = decode_bf16(POINTER(const uint16, x)[row * COLUMNS + i]);
  quantize_row(work, POINTER(uint8, values), POINTER(float, scales), row, rows, COLUMNS);
}
