// Partial sums of a product of rows that are still to be divided by their size (RMSNorm): those of each slice of the
// columns, one after the other, for whoever reads the product to add up. The C twin of `join_partials` in split_k.py (a
// test compares the two).
#pragma once

// Of a slice: a term for each of ROWS x OUTPUTS results, then the slice's share of each row's mean square.
template <int ROWS, int OUTPUTS> struct SplitKPartials {
  static constexpr int SLICE = ROWS * (OUTPUTS + 1);
  static constexpr int term(int slice, int row, int output) { return slice * SLICE + row * OUTPUTS + output; }
  static constexpr int mean_square(int slice, int row) { return slice * SLICE + ROWS * OUTPUTS + row; }
};
