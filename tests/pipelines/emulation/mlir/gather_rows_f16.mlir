func.func @main(%table: tensor<50x33xf16>, %rows: tensor<21xi32>) -> tensor<21x33xf16> {
  %e = tensor.empty() : tensor<21x33xf16>
  %r = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>],
      iterator_types = ["parallel", "parallel"]} ins(%rows : tensor<21xi32>) outs(%e : tensor<21x33xf16>) {
    ^bb0(%row: i32, %o: f16):
      %i = arith.index_cast %row : i32 to index
      %j = linalg.index 1 : index
      %v = tensor.extract %table[%i, %j] : tensor<50x33xf16>
      linalg.yield %v : f16
  } -> tensor<21x33xf16>
  return %r : tensor<21x33xf16>
}
