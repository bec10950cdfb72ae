func.func @main(%x: tensor<11x13xi32>) -> tensor<9x14xi32> {
  %fill = arith.constant 7 : i32
  %padded = tensor.pad %x low[2, 1] high[3, 4] {
    ^bb0(%i: index, %j: index):
      tensor.yield %fill : i32
  } : tensor<11x13xi32> to tensor<16x18xi32>
  %r = tensor.extract_slice %padded[1, 2] [9, 14] [1, 1] : tensor<16x18xi32> to tensor<9x14xi32>
  %s = arith.addi %r, %r : tensor<9x14xi32>
  return %s : tensor<9x14xi32>
}
