func.func @main(%x: tensor<67x130xf16>) -> tensor<130x67xf16> {
  %e = tensor.empty() : tensor<130x67xf16>
  %r = linalg.transpose ins(%x : tensor<67x130xf16>) outs(%e : tensor<130x67xf16>) permutation = [1, 0]
  return %r : tensor<130x67xf16>
}
