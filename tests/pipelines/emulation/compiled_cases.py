"""Small MLIR functions whose compiled dispatches cover matmuls, reductions, casts and the like."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

FLOAT8 = {
    "gfx942": ("f8E4M3FNUZ", ml_dtypes.float8_e4m3fnuz),
    "gfx950": ("f8E4M3FN", ml_dtypes.float8_e4m3fn),
}
DTYPES = {
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "f32": np.float32,
    "f64": np.float64,
    "i8": np.int8,
    "i32": np.int32,
    "i64": np.int64,
}


@dataclass(frozen=True)
class CompiledCase:
    """One function ``main``; ``FLOAT8`` in its text stands for the architecture's own fp8 type.

    ``tolerance`` bounds |got - expected| / (|expected| + 1) elementwise; 0 asks for equal bytes.
    """

    name: str
    mlir: str
    inputs: Callable[[np.random.Generator, str], list[np.ndarray]]
    tolerance: float
    flags: tuple[str, ...] = ()
    expected: Callable[[list[np.ndarray], str], np.ndarray] | None = None
    """Where the CPU's own code is wrong: the result by another way."""


def _random(dtype: str, *shape: int) -> Callable[[np.random.Generator, str], np.ndarray]:
    def make(rng: np.random.Generator, arch: str) -> np.ndarray:
        if dtype in ("i8", "i32", "i64"):
            return rng.integers(-100, 100, shape).astype(DTYPES[dtype])
        values = rng.uniform(-2, 2, shape)
        return values.astype(FLOAT8[arch][1] if dtype == "FLOAT8" else DTYPES[dtype])

    return make


def _inputs(*makers):
    return lambda rng, arch: [maker(rng, arch) for maker in makers]


def _tensor(dtype: str, *shape: int | str) -> str:
    return f"tensor<{'x'.join(str(size) for size in shape)}{'x' if shape else ''}{dtype}>"


def _matmul(name: str, dtype: str, accumulator: str, m: int, n: int, k: int, tolerance: float) -> CompiledCase:
    a, b, c = _tensor(dtype, m, k), _tensor(dtype, k, n), _tensor(accumulator, m, n)
    zero = "0" if accumulator.startswith("i") else "0.0"
    text = f"""func.func @main(%a: {a}, %b: {b}) -> {c} {{
      %zero = arith.constant {zero} : {accumulator}
      %empty = tensor.empty() : {c}
      %init = linalg.fill ins(%zero : {accumulator}) outs(%empty : {c}) -> {c}
      %r = linalg.matmul ins(%a, %b : {a}, {b}) outs(%init : {c}) -> {c}
      return %r : {c}
    }}"""
    return CompiledCase(name, text, _inputs(_random(dtype, m, k), _random(dtype, k, n)), tolerance)


def _elementwise(
    name,
    types: list[str],
    result: str,
    body: str,
    shape: tuple[int, ...],
    tolerance: float,
    inputs=None,
    flags=(),
    expected=None,
):
    """``body`` computes %r from %a, %b, ... (one per type)."""
    names = "abc"[: len(types)]
    tensors = [_tensor(t, *shape) for t in types]
    out = _tensor(result, *shape)
    dimensions = ", ".join(f"d{i}" for i in range(len(shape)))
    identity = f"affine_map<({dimensions}) -> ({dimensions})>"
    maps = ", ".join([identity] * (len(types) + 1))
    iterators = ", ".join(['"parallel"'] * len(shape))
    arguments = ", ".join(f"%t{n}: {t}" for n, t in zip(names, tensors, strict=True))
    operands = ", ".join(f"%t{n}" for n in names)
    block = ", ".join(f"%{n}: {t}" for n, t in zip(names, types, strict=True))
    text = f"""func.func @main({arguments}) -> {out} {{
      %empty = tensor.empty() : {out}
      %out = linalg.generic {{indexing_maps = [{maps}], iterator_types = [{iterators}]}}
          ins({operands} : {", ".join(tensors)}) outs(%empty : {out}) {{
        ^bb0({block}, %o: {result}):
          {body}
          linalg.yield %r : {result}
      }} -> {out}
      return %out : {out}
    }}"""
    return CompiledCase(name, text, inputs or _inputs(*(_random(t, *shape) for t in types)), tolerance, flags, expected)


def _unary(operation: str, tolerance: float, shape=(33, 77)) -> CompiledCase:
    return _elementwise(f"{operation}_f32", ["f32"], "f32", f"%r = math.{operation} %a : f32", shape, tolerance)


def _positive(*shape):
    return lambda rng, arch: [rng.uniform(0.01, 4, shape).astype(np.float32)]


def _reduce(name, dtype, operation, initial, shape, dimension, tolerance) -> CompiledCase:
    kept = [size for i, size in enumerate(shape) if i != dimension]
    source, out = _tensor(dtype, *shape), _tensor(dtype, *kept)
    text = f"""func.func @main(%x: {source}) -> {out} {{
      %initial = arith.constant {initial} : {dtype}
      %empty = tensor.empty() : {out}
      %init = linalg.fill ins(%initial : {dtype}) outs(%empty : {out}) -> {out}
      %r = linalg.reduce {{ arith.{operation} }} ins(%x : {source}) outs(%init : {out})
          dimensions = [{dimension}]
      return %r : {out}
    }}"""
    return CompiledCase(name, text, _inputs(_random(dtype, *shape)), tolerance)


def _softmax(rows: int, columns: int) -> CompiledCase:
    x = _tensor("f32", rows, columns)
    text = f"""func.func @main(%x: {x}) -> {x} {{
      %e = tensor.empty() : {x}
      %r = linalg.softmax dimension(1) ins(%x : {x}) outs(%e : {x}) -> {x}
      return %r : {x}
    }}"""
    return CompiledCase(f"softmax_{rows}x{columns}", text, _inputs(_random("f32", rows, columns)), 1e-6)


def _attention(dtype: str, heads: int, queries: int, keys: int, size: int, tolerance: float) -> CompiledCase:
    q, k = _tensor(dtype, heads, queries, size), _tensor(dtype, heads, keys, size)
    dims = "b, m, n, k1, k2"
    maps = ", ".join(f"affine_map<({dims}) -> ({out})>" for out in ("b, m, k1", "b, k2, k1", "b, k2, n", "", "b, m, n"))
    text = f"""func.func @main(%q: {q}, %k: {k}, %v: {k}) -> {q} {{
      %e = tensor.empty() : {q}
      %scale = arith.constant 0.125 : {dtype}
      %r = iree_linalg_ext.attention <{{indexing_maps = [{maps}]}}>
          ins(%q, %k, %v, %scale : {q}, {k}, {k}, {dtype}) outs(%e : {q}) {{
        ^bb0(%score: f32):
          iree_linalg_ext.yield %score : f32
      }} -> {q}
      return %r : {q}
    }}"""
    makers = (
        _random(dtype, heads, queries, size),
        _random(dtype, heads, keys, size),
        _random(dtype, heads, keys, size),
    )
    return CompiledCase(f"attention_{dtype}_{queries}x{keys}", text, _inputs(*makers), tolerance)


def _from_file(name, inputs, tolerance) -> CompiledCase:
    return CompiledCase(name, (Path(__file__).parent / "mlir" / f"{name}.mlir").read_text(), inputs, tolerance)


INTEGER_BODY = """%three = arith.constant 3 : i32
          %one = arith.constant 1 : i32
          %n = arith.ori %b, %one : i32
          %q = arith.divsi %a, %n : i32
          %m = arith.remsi %a, %n : i32
          %s = arith.shrsi %a, %three : i32
          %x = arith.xori %q, %s : i32
          %y = arith.muli %x, %m : i32
          %r = arith.maxsi %y, %b : i32"""
INTEGER64_BODY = """%five = arith.constant 5 : i64
          %p = arith.muli %a, %b : i64
          %s = arith.shli %p, %five : i64
          %u = arith.shrui %s, %five : i64
          %r = arith.subi %u, %b : i64"""
DOUBLE_BODY = """%p = arith.mulf %a, %b : f64
          %q = arith.divf %p, %a : f64
          %n = math.absf %q : f64
          %r = math.sqrt %n : f64"""
COMPARE_BODY = """%c = arith.cmpf olt, %a, %b : f32
          %d = arith.subf %b, %a : f32
          %e = arith.select %c, %d, %a : f32
          %lo = arith.constant -1.0 : f32
          %hi = arith.constant 1.0 : f32
          %f = arith.maximumf %e, %lo : f32
          %r = arith.minimumf %f, %hi : f32"""
QUANTIZE_BODY = """%scale = arith.constant 37.0 : f32
          %lo = arith.constant -128.0 : f32
          %hi = arith.constant 127.0 : f32
          %p = arith.mulf %a, %scale : f32
          %n = math.roundeven %p : f32
          %f = arith.maximumf %n, %lo : f32
          %g = arith.minimumf %f, %hi : f32
          %r = arith.fptosi %g : f32 to i8"""

CASES = [
    _matmul("matmul_f32", "f32", "f32", 64, 64, 64, 1e-5),
    _matmul("matmul_f32_odd", "f32", "f32", 37, 29, 53, 1e-5),
    _matmul("matmul_f16", "f16", "f32", 128, 128, 64, 1e-4),
    _matmul("matmul_bf16", "bf16", "f32", 128, 64, 128, 1e-4),
    _matmul("matmul_bf16_few_rows", "bf16", "f32", 16, 2, 256, 1e-4),
    _matmul("matmul_i8", "i8", "i32", 64, 128, 64, 0),
    _matmul("matmul_fp8", "FLOAT8", "f32", 128, 128, 128, 1e-4),
    _matmul("matmul_f16_odd", "f16", "f32", 33, 70, 47, 1e-4),
    _from_file(
        "batch_matmul_f16",
        _inputs(_random("f16", 3, 24, 40), _random("f16", 3, 40, 17)),
        1e-5,
    ),
    _from_file(
        "matvec_f32",
        _inputs(_random("f32", 65, 300), _random("f32", 300)),
        1e-5,
    ),
    _from_file(
        "matmul_bias_relu_bf16",
        _inputs(_random("bf16", 64, 128), _random("bf16", 128, 32), _random("f32", 32)),
        1e-2,
    ),
    _from_file(
        "matmul_dynamic_rows_f16",
        _inputs(_random("f16", 37, 64), _random("f16", 64, 48)),
        1e-5,
    ),
    _attention("f16", 2, 64, 128, 64, 2e-3),
    _softmax(7, 300),
    _softmax(3, 4096),
    _from_file(
        "rms_norm_bf16",
        _inputs(_random("bf16", 9, 256), _random("f32", 256)),
        1e-2,
    ),
    _reduce("sum_rows_f32", "f32", "addf", "0.0", (64, 999), 1, 1e-5),
    _reduce("sum_columns_f16", "f16", "addf", "0.0", (128, 65), 0, 4e-2),
    _reduce("max_rows_i32", "i32", "maxsi", "-2147483648", (9, 517), 1, 0),
    _reduce("sum_all_but_one_f32", "f32", "addf", "0.0", (20000, 1), 0, 1e-4),
    _from_file(
        "conv2d_f16",
        _inputs(_random("f16", 1, 18, 18, 32), _random("f16", 3, 3, 32, 64)),
        1e-4,
    ),
    _from_file(
        "max_pool_f32",
        _inputs(_random("f32", 1, 15, 15, 7)),
        0,
    ),
    _from_file(
        "transpose_f16",
        _inputs(_random("f16", 67, 130)),
        0,
    ),
    _from_file(
        "pad_and_slice_i32",
        _inputs(_random("i32", 11, 13)),
        0,
    ),
    _from_file(
        "concatenate_f32",
        _inputs(_random("f32", 5, 12), _random("f32", 8, 12)),
        0,
    ),
    _from_file(
        "gather_rows_f16",
        lambda rng, arch: [_random("f16", 50, 33)(rng, arch), rng.integers(0, 50, 21).astype(np.int32)],
        0,
    ),
    _from_file(
        "scatter_rows_f32",
        lambda rng, arch: [
            _random("f32", 40, 16)(rng, arch),
            rng.permutation(40)[:6].astype(np.int32)[:, None],
            _random("f32", 6, 16)(rng, arch),
        ],
        0,
    ),
    _from_file(
        "sort_f32",
        _inputs(_random("f32", 3, 40)),
        0,
    ),
    _from_file(
        "argmax_f32",
        _inputs(_random("f32", 6, 100)),
        0,
    ),
    _unary("exp", 1e-6),
    _unary("tanh", 1e-6),
    _unary("erf", 1e-6),
    _unary("sin", 1e-6),
    _elementwise(
        "log_sqrt_f32",
        ["f32"],
        "f32",
        "%l = math.log %a : f32\n%q = math.sqrt %a : f32\n%r = arith.divf %l, %q : f32",
        (1001,),
        1e-6,
        _positive(1001),
    ),
    _elementwise("cast_f32_bf16", ["f32"], "bf16", "%r = arith.truncf %a : f32 to bf16", (777,), 0),
    _elementwise(
        "cast_f32_fp8",
        ["f32"],
        "FLOAT8",
        "%r = arith.truncf %a : f32 to FLOAT8",
        (1024,),
        0,
        expected=lambda inputs, arch: inputs[0].astype(FLOAT8[arch][1]),
    ),
    _elementwise("cast_fp8_f32", ["FLOAT8"], "f32", "%r = arith.extf %a : FLOAT8 to f32", (1023,), 0),
    _elementwise("cast_i8_f16", ["i8"], "f16", "%r = arith.sitofp %a : i8 to f16", (555,), 0),
    _elementwise("quantize_f32_i8", ["f32"], "i8", QUANTIZE_BODY, (31, 65), 0),
    _elementwise("integers_i32", ["i32", "i32"], "i32", INTEGER_BODY, (500,), 0),
    _elementwise("integers_i64", ["i64", "i64"], "i64", INTEGER64_BODY, (300,), 0),
    _elementwise(
        "doubles_f64",
        ["f64", "f64"],
        "f64",
        DOUBLE_BODY,
        (200,),
        1e-13,
        flags=("--iree-input-demote-f64-to-f32=false",),
    ),
    _elementwise("compare_clamp_f32", ["f32", "f32"], "f32", COMPARE_BODY, (3, 5, 67), 0),
    _from_file(
        "dynamic_elementwise_f32",
        _inputs(_random("f32", 13, 129), _random("f32", 13, 129)),
        0,
    ),
    _from_file(
        "dynamic_reduction_f32",
        _inputs(_random("f32", 5, 333)),
        1e-5,
    ),
]
