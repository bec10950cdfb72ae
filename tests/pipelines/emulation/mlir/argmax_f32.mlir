func.func @main(%x: tensor<6x100xf32>) -> tensor<6xi32> {
  %low = arith.constant 0xFF800000 : f32
  %none = arith.constant 0 : i32
  %e0 = tensor.empty() : tensor<6xf32>
  %e1 = tensor.empty() : tensor<6xi32>
  %i0 = linalg.fill ins(%low : f32) outs(%e0 : tensor<6xf32>) -> tensor<6xf32>
  %i1 = linalg.fill ins(%none : i32) outs(%e1 : tensor<6xi32>) -> tensor<6xi32>
  %r:2 = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i)>],
      iterator_types = ["parallel", "reduction"]} ins(%x : tensor<6x100xf32>) outs(%i0, %i1 : tensor<6xf32>, tensor<6xi32>) {
    ^bb0(%v: f32, %best: f32, %at: i32):
      %j = linalg.index 1 : index
      %here = arith.index_cast %j : index to i32
      %better = arith.cmpf ogt, %v, %best : f32
      %value = arith.select %better, %v, %best : f32
      %index = arith.select %better, %here, %at : i32
      linalg.yield %value, %index : f32, i32
  } -> (tensor<6xf32>, tensor<6xi32>)
  return %r#1 : tensor<6xi32>
}
