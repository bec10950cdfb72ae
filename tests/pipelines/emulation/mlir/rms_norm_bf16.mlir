func.func @main(%x: tensor<9x256xbf16>, %w: tensor<256xf32>) -> tensor<9x256xbf16> {
  %zero = arith.constant 0.0 : f32
  %size = arith.constant 256.0 : f32
  %epsilon = arith.constant 1.0e-6 : f32
  %e = tensor.empty() : tensor<9xf32>
  %init = linalg.fill ins(%zero : f32) outs(%e : tensor<9xf32>) -> tensor<9xf32>
  %sum = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>],
      iterator_types = ["parallel", "reduction"]} ins(%x : tensor<9x256xbf16>) outs(%init : tensor<9xf32>) {
    ^bb0(%v: bf16, %s: f32):
      %f = arith.extf %v : bf16 to f32
      %q = arith.mulf %f, %f : f32
      %t = arith.addf %q, %s : f32
      linalg.yield %t : f32
  } -> tensor<9xf32>
  %out = tensor.empty() : tensor<9x256xbf16>
  %r = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (j)>,
      affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%x, %sum, %w : tensor<9x256xbf16>, tensor<9xf32>, tensor<256xf32>) outs(%out : tensor<9x256xbf16>) {
    ^bb0(%v: bf16, %s: f32, %g: f32, %o: bf16):
      %f = arith.extf %v : bf16 to f32
      %m = arith.divf %s, %size : f32
      %a = arith.addf %m, %epsilon : f32
      %n = math.rsqrt %a : f32
      %y = arith.mulf %f, %n : f32
      %z = arith.mulf %y, %g : f32
      %t = arith.truncf %z : f32 to bf16
      linalg.yield %t : bf16
  } -> tensor<9x256xbf16>
  return %r : tensor<9x256xbf16>
}
