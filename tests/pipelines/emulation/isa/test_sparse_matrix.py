"""SMFMAC against numpy: A holds two of every four k, chosen by an index register; B is dense."""

import numpy as np
import pytest

from tests.pipelines.emulation.isa.test_matrix import exact_values, lane_operand, pack, place_of
from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

EIGHT_BITS = [(a, b) for a in ("fp8", "bf8") for b in ("fp8", "bf8")]
# size, depth, type of A and B
NARROW = [(size, depth, kind, kind) for size, depth in ((16, 32), (32, 16)) for kind in ("f16", "bf16")]
NARROW += [(size, depth, *kinds) for size, depth in ((16, 64), (32, 32)) for kinds in [("i8", "i8"), *EIGHT_BITS]]
WIDE = [(size, depth, kind, kind) for size, depth in ((16, 64), (32, 32)) for kind in ("f16", "bf16")]
WIDE += [(size, depth, *kinds) for size, depth in ((16, 128), (32, 64)) for kinds in [("i8", "i8"), *EIGHT_BITS]]
CASES = [("gfx942", *case) for case in NARROW] + [("gfx950", *case) for case in NARROW[::4] + WIDE]
A, B, INDEX, D = 0, 16, 40, 80


def _sparse_rows(rng, dense: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """dense [row, k] -> the same with two of every four k kept, and [row, k // 4, 2] which."""
    chosen = np.sort(np.argsort(rng.random((*dense.shape[:1], dense.shape[1] // 4, 4)), axis=2)[..., :2], axis=2)
    kept = np.zeros((dense.shape[0], dense.shape[1] // 4, 4), bool)
    np.put_along_axis(kept, chosen, True, axis=2)
    return np.where(kept.reshape(dense.shape), dense, np.zeros_like(dense)), chosen


@pytest.mark.parametrize("arch,size,depth,left,right", CASES)
def test_sparse_matrix_form(arch, size, depth, left, right):
    rng = np.random.default_rng(size * depth)
    a, chosen = _sparse_rows(rng, exact_values(rng, left, arch, (size, depth)))
    b = exact_values(rng, right, arch, (1, size, depth))
    number = np.int32 if left == "i8" else np.float32
    c = rng.integers(-50, 50, (1, size, size)).astype(number)
    kept = size * depth // 128
    sets = 16 // kept
    chunks = a.reshape(size, -1, 4)
    packed = np.take_along_axis(chunks, chosen, axis=2).reshape(1, size, depth // 2)
    places = chosen.reshape(1, size, depth // 2)
    group = make_group()
    pack(group, A, lane_operand(packed, size, depth // 2, 1))
    pack(group, B, lane_operand(b, size, depth, 1))
    index = (lane_operand(places, size, depth // 2, 1) << 2 * np.arange(kept)).sum(axis=1)
    used = sets - 1
    mask = (1 << 2 * kept) - 1 << 2 * kept * used
    noise = rng.integers(0, 2**32, 64, dtype=np.uint64).astype(np.int64) & ~mask & 0xFFFFFFFF
    group.vgpr(INDEX)[:] = (index << 2 * kept * used | noise).astype(np.uint32)
    outputs = size * size // 64
    for register in range(outputs):
        for lane in range(64):
            group.vgpr(D + register)[lane] = c[place_of(size, register, lane)].view(np.uint32)
    bits = 16 if left in ("f16", "bf16") else 8
    words = [kept * bits // 32, 2 * kept * bits // 32]
    types = f"{left}_{right}" if left in ("fp8", "bf8") else left
    name = f"v_smfmac_{'i32' if left == 'i8' else 'f32'}_{size}x{size}x{depth}_{types}"
    operands = f"v[{D}:{D + outputs - 1}], v[{A}:{A + words[0] - 1}], v[{B}:{B + words[1] - 1}], v{INDEX}"
    selection = f" abid:{used}" if used else ""
    group.run(kernel(f"{name} {operands}{selection}", arch))
    assert not group.faults
    wide = np.int64 if left == "i8" else np.float64
    expected = (np.einsum("ik,bjk->bij", a.astype(wide), b.astype(wide)) + c).astype(number)
    for register in range(outputs):
        got = group.vgpr(D + register).view(number)
        for lane in range(64):
            assert got[lane] == expected[place_of(size, register, lane)], (register, lane)
    assert group.waves[0].counters.matrix_operations == 2 * size * size * depth
