module @model {
  util.global private @weight = #flow.parameter.named<"model"::"weight"> : tensor<64x48xf32>
  func.func @main(%x: tensor<8x64xf32>, %cache: tensor<128x48xf32>, %at: tensor<i32>) -> tensor<128x48xf32> {
    %weight = util.global.load @weight : tensor<64x48xf32>
    %zero = arith.constant 0.0 : f32
    %empty = tensor.empty() : tensor<8x48xf32>
    %init = linalg.fill ins(%zero : f32) outs(%empty : tensor<8x48xf32>) -> tensor<8x48xf32>
    %y = linalg.matmul ins(%x, %weight : tensor<8x64xf32>, tensor<64x48xf32>)
        outs(%init : tensor<8x48xf32>) -> tensor<8x48xf32>
    %number = tensor.extract %at[] : tensor<i32>
    %row = arith.index_cast %number : i32 to index
    %r = tensor.insert_slice %y into %cache[%row, 0] [8, 48] [1, 1] : tensor<8x48xf32> into tensor<128x48xf32>
    return %r : tensor<128x48xf32>
  }
}
