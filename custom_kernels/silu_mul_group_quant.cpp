// One row: silu(gate) * up, rounded to bf16, then group-quantised. COLUMNS is a compile-time constant.
#include "cpu.h"

extern "C" void silu_mul_group_quant(BUFFER(x), BUFFER(values), BUFFER(scales), int64 rows, int64 row, int64, int64) {
  const uint16 *gate = POINTER(const uint16, x) + row * 2 * COLUMNS, *up = gate + COLUMNS;
  float work[COLUMNS];
  for (int i = 0; i < COLUMNS; ++i) {
    float g = decode_bf16(gate[i]);
    work[i] = decode_bf16(encode_bf16(g / (1.0f + exponential(-g)) * decode_bf16(up[i])));
  }
  quantize_row(work, POINTER(uint8, values), POINTER(float, scales), row, rows, COLUMNS);
}
