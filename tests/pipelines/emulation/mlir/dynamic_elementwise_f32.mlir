func.func @main(%a: tensor<?x?xf32>, %b: tensor<?x?xf32>) -> tensor<?x?xf32> {
  %0 = arith.mulf %a, %b : tensor<?x?xf32>
  %1 = arith.addf %0, %a : tensor<?x?xf32>
  return %1 : tensor<?x?xf32>
}
