// One row: RMS norm and group quantisation. COLUMNS is a compile-time constant.
#include "cpu_norm.h"

extern "C" void rms_norm_group_quant(BUFFER(x), BUFFER(weight), BUFFER(values), BUFFER(scales), BUFFER(normed),
                                     int64 rows, int64 epsilon_bits, int64 row, int64, int64) {
  float work[COLUMNS];
  for (int i = 0; i < COLUMNS; ++i) work[i] = decode_bf16(POINTER(const uint16, x)[row * COLUMNS + i]);
  rms_normalize(work, POINTER(const uint16, weight), COLUMNS, bits_to_float(uint32(epsilon_bits)));
  quantize_row(work, POINTER(uint8, values), POINTER(float, scales), row, rows, COLUMNS);
  for (int i = 0; i < COLUMNS; ++i) POINTER(uint16, normed)[row * COLUMNS + i] = encode_bf16(work[i]);
}
