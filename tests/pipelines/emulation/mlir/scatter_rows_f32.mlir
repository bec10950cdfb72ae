func.func @main(%table: tensor<40x16xf32>, %rows: tensor<6x1xi32>, %updates: tensor<6x16xf32>) -> tensor<40x16xf32> {
  %r = iree_linalg_ext.scatter dimension_map = [0] unique_indices(true)
      ins(%updates, %rows : tensor<6x16xf32>, tensor<6x1xi32>) outs(%table : tensor<40x16xf32>) {
    ^bb0(%new: f32, %old: f32):
      iree_linalg_ext.yield %new : f32
  } -> tensor<40x16xf32>
  return %r : tensor<40x16xf32>
}
