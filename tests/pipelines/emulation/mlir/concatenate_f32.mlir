func.func @main(%a: tensor<5x12xf32>, %b: tensor<8x12xf32>) -> tensor<13x12xf32> {
  %r = tensor.concat dim(0) %a, %b : (tensor<5x12xf32>, tensor<8x12xf32>) -> tensor<13x12xf32>
  %s = arith.mulf %r, %r : tensor<13x12xf32>
  return %s : tensor<13x12xf32>
}
