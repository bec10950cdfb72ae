func.func @main(%x: tensor<1x15x15x7xf32>) -> tensor<1x7x7x7xf32> {
  %low = arith.constant 0xFF800000 : f32
  %window = tensor.empty() : tensor<3x3xf32>
  %e = tensor.empty() : tensor<1x7x7x7xf32>
  %init = linalg.fill ins(%low : f32) outs(%e : tensor<1x7x7x7xf32>) -> tensor<1x7x7x7xf32>
  %r = linalg.pooling_nhwc_max {dilations = dense<1> : tensor<2xi64>, strides = dense<2> : tensor<2xi64>}
      ins(%x, %window : tensor<1x15x15x7xf32>, tensor<3x3xf32>) outs(%init : tensor<1x7x7x7xf32>) -> tensor<1x7x7x7xf32>
  return %r : tensor<1x7x7x7xf32>
}
