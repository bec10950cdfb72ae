"""Every MFMA form against numpy at its documented lane layout."""

import ml_dtypes
import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

TYPES = {
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "i8": np.int8,
    "fp8": {"gfx942": ml_dtypes.float8_e4m3fnuz, "gfx950": ml_dtypes.float8_e4m3fn},
    "bf8": {"gfx942": ml_dtypes.float8_e5m2fnuz, "gfx950": ml_dtypes.float8_e5m2},
}
# size, depth, blocks, type of A and B
COMMON = [
    (32, 1, 2, "f32", "f32"),
    (16, 1, 4, "f32", "f32"),
    (4, 1, 16, "f32", "f32"),
    (32, 2, 1, "f32", "f32"),
    (16, 4, 1, "f32", "f32"),
    (32, 4, 2, "f16", "f16"),
    (16, 4, 4, "f16", "f16"),
    (4, 4, 16, "f16", "f16"),
    (32, 8, 1, "f16", "f16"),
    (16, 16, 1, "f16", "f16"),
    (32, 4, 2, "bf16", "bf16"),
    (16, 4, 4, "bf16", "bf16"),
    (4, 4, 16, "bf16", "bf16"),
    (32, 8, 1, "bf16", "bf16"),
    (16, 16, 1, "bf16", "bf16"),
    (32, 4, 2, "i8", "i8"),
    (16, 4, 4, "i8", "i8"),
    (4, 4, 16, "i8", "i8"),
    (32, 16, 1, "i8", "i8"),
    (16, 32, 1, "i8", "i8"),
    *((size, depth, 1, a, b) for size, depth in ((16, 32), (32, 16)) for a in ("fp8", "bf8") for b in ("fp8", "bf8")),
]
WIDE = [
    (16, 32, 1, "f16", "f16"),
    (32, 16, 1, "f16", "f16"),
    (16, 32, 1, "bf16", "bf16"),
    (32, 16, 1, "bf16", "bf16"),
    (16, 64, 1, "i8", "i8"),
    (32, 32, 1, "i8", "i8"),
]
CASES = [("gfx942", *case) for case in COMMON] + [("gfx950", *case) for case in COMMON if case[3] in ("fp8", "bf8")]
CASES += [("gfx950", *case) for case in WIDE]
A, B, C, D = 0, 16, 32, 80


def _text(size, depth, blocks, left, right, accumulator="v") -> str:
    per_lane = size * depth * blocks // 64
    width = {"f32": 4, "f16": 2, "bf16": 2}
    registers = [max(1, per_lane * width.get(kind, 1) // 4) for kind in (left, right)]
    outputs = size * size * blocks // 64
    result = "i32" if left == "i8" else "f32"
    types = f"{left}_{right}" if left in ("fp8", "bf8") else left
    block = f"_{blocks}b" if blocks > 1 else ""
    operand = [
        f"v[{start}:{start + n - 1}]" if n > 1 else f"v{start}" for start, n in zip((A, B), registers, strict=False)
    ]
    third = f"{accumulator}[{C}:{C + outputs - 1}]"
    name = f"v_mfma_{result}_{size}x{size}x{depth}{block}_{types}"
    return f"{name} {accumulator}[{D}:{D + outputs - 1}], {operand[0]}, {operand[1]}, {third}"


def exact_values(rng, kind, arch, shape):
    dtype = TYPES[kind][arch] if isinstance(TYPES[kind], dict) else TYPES[kind]
    if kind == "i8":
        return rng.integers(-128, 128, shape).astype(np.int8)
    # Small multiples of 1/4: every product and sum is exact, whatever the order of summation.
    return (rng.integers(-8, 9, shape) / 4).astype(np.float32).astype(dtype)


def pack(group, register, lanes: np.ndarray) -> None:
    """lanes [64, elements] of any type -> consecutive registers."""
    raw = np.ascontiguousarray(lanes).view(np.uint8).reshape(64, -1)
    raw = np.pad(raw, ((0, 0), (0, -raw.shape[1] % 4)))
    for i, word in enumerate(raw.view(np.uint32).T):
        group.vgpr(register + i)[:] = word


def lane_operand(matrix: np.ndarray, size, depth, blocks) -> np.ndarray:
    """matrix [block, row, k] -> [64, depth per lane]: row and block from the lane's low part, k from its
    high part."""
    per_lane = size * depth * blocks // 64
    lanes = []
    for lane in range(64):
        row, block, chunk = lane % size, lane // size % blocks, lane // (size * blocks)
        lanes.append(matrix[block, row, chunk * per_lane : (chunk + 1) * per_lane])
    return np.array(lanes)


def place_of(size, register, lane) -> tuple[int, int, int]:
    """(block, row, column) of an accumulator register in a lane."""
    if size == 4:
        return lane // 4, register, lane % 4
    rows_of_lanes = 64 // size  # lanes that share a column
    per_block = size // rows_of_lanes
    block, inner = divmod(register, per_block)
    return block, inner // 4 * 4 * rows_of_lanes + lane // size * 4 + inner % 4, lane % size


@pytest.mark.parametrize("arch,size,depth,blocks,left,right", CASES)
def test_matrix_form(arch, size, depth, blocks, left, right):
    rng = np.random.default_rng(size * depth + blocks)
    a = exact_values(rng, left, arch, (blocks, size, depth))
    b = exact_values(rng, right, arch, (blocks, size, depth))  # [block, column, k]
    number = np.int32 if left == "i8" else np.float32
    c = rng.integers(-50, 50, (blocks, size, size)).astype(number)
    group = make_group()
    pack(group, A, lane_operand(a, size, depth, blocks))
    pack(group, B, lane_operand(b, size, depth, blocks))
    outputs = size * size * blocks // 64
    for register in range(outputs):
        for lane in range(64):
            group.vgpr(C + register)[lane] = c[place_of(size, register, lane)].view(np.uint32)
    group.run(kernel(_text(size, depth, blocks, left, right), arch))
    wide = np.int64 if left == "i8" else np.float64
    expected = (np.einsum("bik,bjk->bij", a.astype(wide), b.astype(wide)) + c).astype(number)
    for register in range(outputs):
        got = group.vgpr(D + register).view(number)
        for lane in range(64):
            assert got[lane] == expected[place_of(size, register, lane)], (register, lane)
    assert group.waves[0].counters.matrix_operations == 2 * size * size * depth * blocks


def test_accumulators_in_agprs_and_constants():
    text = (
        "v_mfma_f32_16x16x16_f16 a[80:83], v[0:1], v[16:17], 1.0\nv_accvgpr_read_b32 v200, a80\n"
        "v_accvgpr_write_b32 a7, v200\nv_accvgpr_mov_b32 a8, a7\nv_accvgpr_read_b32 v201, a8"
    )
    group = make_group()
    group.run(kernel(text))
    assert (group.vgpr(201).view(np.float32) == 1.0).all() and (group.vgpr(256 + 83).view(np.float32) == 1.0).all()


@pytest.mark.parametrize("size", [16, 4])
def test_f64(size):
    rng = np.random.default_rng(size)
    blocks = 1 if size == 16 else 4
    a, b = rng.normal(size=(2, blocks, size, 4))
    c = rng.normal(size=(blocks, size, size))
    group = make_group()
    rows = 4 if size == 16 else 1

    def place(register, lane):
        return (0, 4 * register + lane // 16, lane % 16) if size == 16 else (lane // 4 % 4, lane // 16, lane % 4)

    for base, matrix in ((A, a), (B, b)):
        lanes = [matrix[0 if size == 16 else lane // 4 % 4, lane % size, lane // 16] for lane in range(64)]
        pack(group, base, np.array(lanes)[:, None])
    pack(group, C, np.array([[c[place(r, lane)] for r in range(rows)] for lane in range(64)]))
    block = "_4b" if size == 4 else ""
    n = 2 * rows
    group.run(kernel(f"v_mfma_f64_{size}x{size}x4{block}_f64 v[{D}:{D + n - 1}], v[0:1], v[16:17], v[{C}:{C + n - 1}]"))
    expected = np.einsum("bik,bjk->bij", a, b) + c
    for r in range(rows):
        words = np.stack([group.vgpr(D + 2 * r), group.vgpr(D + 2 * r + 1)], axis=1)
        got = np.ascontiguousarray(words).view(np.float64)[:, 0]
        np.testing.assert_allclose(got, [expected[place(r, lane)] for lane in range(64)], rtol=1e-13)


SMALL = {
    "fp8": (0, 8, ml_dtypes.float8_e4m3fn),
    "bf8": (1, 8, ml_dtypes.float8_e5m2),
    "fp6": (2, 6, ml_dtypes.float6_e2m3fn),
    "bf6": (3, 6, ml_dtypes.float6_e3m2fn),
    "fp4": (4, 4, ml_dtypes.float4_e2m1fn),
}


def _k_of(bits, size, lane, element) -> int:
    depth, chunk = (128 if size == 16 else 64), lane // size
    if bits == 8:
        return element // 16 * (depth // 2) + 16 * chunk + element % 16
    return 32 * chunk + element


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("left,right", [("fp8", "fp8"), ("fp8", "bf8"), ("fp4", "fp4"), ("fp6", "bf6")])
def test_selected_formats(left, right, size, scaled):
    """The f8f6f4 forms of gfx950, without and with block scales (second byte of A's scale word, third of
    B's)."""
    rng = np.random.default_rng(size)
    depth = 128 if size == 16 else 64
    group = make_group()
    matrices, scales = [], []
    for base, kind in ((A, left), (B, right)):
        _, bits, dtype = SMALL[kind]
        values = (rng.integers(-4, 5, (size, depth)) / 2).astype(np.float32).astype(dtype)
        matrices.append(values.astype(np.float64))
        scale = rng.integers(125, 130, (size, depth // 32))
        scales.append(scale)
        for lane in range(64):
            word = 0
            for element in range(32):
                code = int(values.view(np.uint8)[lane % size, _k_of(bits, size, lane, element)])
                word |= code << element * bits
            for register in range(bits):
                group.vgpr(base + register)[lane] = word >> 32 * register & 0xFFFFFFFF
            shift = 8 if base == A else 16
            group.vgpr(70 + (base != A))[lane] = int(scale[lane % size, lane // size]) << shift | 0x11 << 24
    registers = [SMALL[kind][1] for kind in (left, right)]
    n = size * size // 64
    name = f"f32_{size}x{size}x{depth}_f8f6f4"
    operands = f"v[{D}:{D + n - 1}], v[0:{registers[0] - 1}], v[16:{15 + registers[1]}], 0"
    tail = f" cbsz:{SMALL[left][0]} blgp:{SMALL[right][0]}"
    text = f"v_mfma_{name} {operands}{tail}"
    if scaled:
        text = f"v_mfma_scale_{name} {operands}, v70, v71 op_sel:[1,0,0] op_sel_hi:[0,1,0]{tail}"
        matrices = [m * np.repeat(2.0 ** (s - 127), 32, axis=1) for m, s in zip(matrices, scales, strict=False)]
    group.run(kernel(text, "gfx950"))
    expected = matrices[0] @ matrices[1].T
    for register in range(n):
        for lane in range(64):
            _, row, column = place_of(size, register, lane)
            assert group.vgpr(D + register).view(np.float32)[lane] == expected[row, column]
