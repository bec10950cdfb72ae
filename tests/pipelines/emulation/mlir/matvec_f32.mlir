func.func @main(%a: tensor<65x300xf32>, %x: tensor<300xf32>) -> tensor<65xf32> {
  %zero = arith.constant 0.0 : f32
  %empty = tensor.empty() : tensor<65xf32>
  %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<65xf32>) -> tensor<65xf32>
  %r = linalg.matvec ins(%a, %x : tensor<65x300xf32>, tensor<300xf32>) outs(%init : tensor<65xf32>) -> tensor<65xf32>
  return %r : tensor<65xf32>
}
