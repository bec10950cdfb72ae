// Unquantised matrix multiplication: a workgroup makes 16 outputs of all rows, four rows at a time.
#include "cpu.h"

constexpr int OUTPUTS = 16;
constexpr int ROWS = 4;
constexpr int LANES = 16;

// Sums of one weight row with `count` rows of x, of which those past the last repeat it.
DEVICE void multiply_row(const uint16 *x, const uint16 *weight, int64 columns, int count, float (&sums)[ROWS]) {
  float partial[ROWS][LANES];
  for (int r = 0; r < ROWS; ++r)
    for (int i = 0; i < LANES; ++i) partial[r][i] = 0;
  for (int64 column = 0; column < columns; column += LANES)
    for (int r = 0; r < ROWS; ++r) {
      const uint16 *row = x + (r < count ? r : count - 1) * columns + column;
      for (int i = 0; i < LANES; ++i) partial[r][i] += decode_bf16(row[i]) * decode_bf16(weight[column + i]);
    }
  for (int r = 0; r < ROWS; ++r) {
    sums[r] = 0;
    for (int i = 0; i < LANES; ++i) sums[r] += partial[r][i];
  }
}

extern "C" void linear_bf16(BUFFER(x), BUFFER(weight), BUFFER(result), int64 rows, int64 outputs, int64 columns,
                            int64 part, int64, int64) {
  for (int64 row = 0; row < rows; row += ROWS)
    for (int64 output = part * OUTPUTS; output < outputs && output < (part + 1) * OUTPUTS; ++output) {
      int count = rows - row < ROWS ? int(rows - row) : ROWS;
      float sums[ROWS];
      multiply_row(POINTER(const uint16, x) + row * columns, POINTER(const uint16, weight) + output * columns, columns,
                   count, sums);
      for (int r = 0; r < count; ++r) POINTER(float, result)[(row + r) * outputs + output] = sums[r];
    }
}
