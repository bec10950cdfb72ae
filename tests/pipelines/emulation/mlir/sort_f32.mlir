func.func @main(%x: tensor<3x40xf32>) -> tensor<3x40xf32> {
  %r = iree_linalg_ext.sort dimension(1) outs(%x : tensor<3x40xf32>) {
    ^bb0(%a: f32, %b: f32):
      %before = arith.cmpf ogt, %a, %b : f32
      iree_linalg_ext.yield %before : i1
  } -> tensor<3x40xf32>
  return %r : tensor<3x40xf32>
}
