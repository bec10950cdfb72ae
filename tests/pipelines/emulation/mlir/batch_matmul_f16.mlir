func.func @main(%a: tensor<3x24x40xf16>, %b: tensor<3x40x17xf16>) -> tensor<3x24x17xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<3x24x17xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<3x24x17xf32>) -> tensor<3x24x17xf32>
  %r = linalg.batch_matmul ins(%a, %b : tensor<3x24x40xf16>, tensor<3x40x17xf16>)
      outs(%init : tensor<3x24x17xf32>) -> tensor<3x24x17xf32>
  return %r : tensor<3x24x17xf32>
}
