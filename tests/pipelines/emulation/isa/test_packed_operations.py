"""Packed 16-bit operations and dot products against AMD's pseudo-code; mixed precision and op_sel by hand."""

import numpy as np
import pytest
from tinygrad.runtime.autogen.amd.cdna.enum import VOP3POp
from tinygrad.runtime.autogen.amd.cdna.str_pcode import PCODE

from tests.pipelines.emulation.isa.pseudo_code import Evaluator
from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

THREE = ("V_PK_MAD_I16", "V_PK_MAD_U16", "V_PK_FMA_F16", "V_PK_MINIMUM3_F16", "V_PK_MAXIMUM3_F16")
NAMES = [op.name for op in VOP3POp if op.name.startswith("V_PK_") and op.name.endswith("16")]
NAMES += [op.name for op in VOP3POp if op.name.startswith("V_DOT") and not op.name.startswith("V_DOT2_F32")]
INTEGERS = np.array([0, 1, 0x7FFF, 0x8000, 0xFFFF, 15, 16, 255], np.uint32)
HALVES = np.array([0, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E00, 0x0001, 0x7BFF, 0x0400, 0x1400], np.uint32)


def _operands(name: str) -> np.ndarray:
    """[3, 64] uint32 of two 16-bit values each; half of them special."""
    rng = np.random.default_rng(len(name))
    special = HALVES if name.endswith("F16") else INTEGERS
    halves = rng.integers(0, 65536, (3, 64, 2)).astype(np.uint32)
    if name.endswith("F16"):
        halves = np.where((halves & 0x7C00) == 0x7C00, halves & 0xBFFF, halves)
    chosen = rng.random(halves.shape) < 0.5
    halves = np.where(chosen, rng.choice(special, halves.shape), halves)
    return (halves[..., 0] | halves[..., 1] << 16).astype(np.uint32)


@pytest.mark.parametrize("name", NAMES)
def test_packed_operation_follows_the_pseudo_code(name):
    third = name in THREE or "DOT" in name
    operands = _operands(name)
    group = make_group()
    for i in range(3):
        group.vgpr(i)[:] = operands[i]
    group.run(kernel(f"{name.lower()} v10, v0, v1{', v2' if third else ''}", "gfx950"))
    compared = 0
    for lane in range(64):
        registers = {f"S{i}": int(operands[i, lane]) for i in range(3)} | {"D0": 0, "tmp": 0}
        if "MINIMUM3" in name or "MAXIMUM3" in name:
            wanted = _extreme_of_three(operands[:, lane], min if "MIN" in name else max)
        else:
            wanted = Evaluator(PCODE[VOP3POp[name]], registers, lane).run()["D0"] & 0xFFFFFFFF
        got = int(group.vgpr(10)[lane])
        if name.endswith("F16"):
            for shift in (0, 16):
                a, b = got >> shift & 0xFFFF, wanted >> shift & 0xFFFF
                assert a == b or (a & 0x7FFF > 0x7C00 and b & 0x7FFF > 0x7C00), (
                    f"lane {lane}: {got:x}, pseudo-code {wanted:x}"
                )
        else:
            assert got == wanted, f"lane {lane}: {got:x}, pseudo-code {wanted:x}"
        compared += 1
    assert compared == 64


def _extreme_of_three(words, choose) -> int:
    """IEEE 754-2019 minimum or maximum of three half-precision pairs: any NaN wins, -0 < +0."""
    result = 0
    for shift in (0, 16):
        codes = [int(word) >> shift & 0xFFFF for word in words]
        order = [(-(code & 0x7FFF), 0) if code & 0x8000 else (code, 1) for code in codes]
        nan = any(code & 0x7FFF > 0x7C00 for code in codes)
        result |= (0x7E00 if nan else codes[order.index(choose(order))]) << shift
    return result


def test_half_precision_fma_rounds_once():
    """(1 + 2^-10)(2^-11 - 2^-21) + 1 + 2^-10 lies just below the middle of two halves; a float sum
    would hit it."""
    group = make_group()
    group.vgpr(0)[:], group.vgpr(1)[:], group.vgpr(2)[:] = 0x3C01, 0x0FFE, 0x3C01
    group.run(kernel("v_fma_f16 v3, v0, v1, v2\nv_pk_fma_f16 v4, v0, v1, v2 op_sel_hi:[0,0,0]"))
    assert group.vgpr(3)[0] == 0x3C01 and group.vgpr(4)[0] == 0x3C013C01


def test_dot2_f32():
    rng = np.random.default_rng(5)
    pairs = rng.integers(-8, 9, (2, 64, 2)).astype(np.float16)
    c = rng.integers(-9, 9, 64).astype(np.float32)
    group = make_group()
    for i in range(2):
        group.vgpr(i)[:] = np.ascontiguousarray(pairs[i]).view(np.uint32)[:, 0]
    group.vgpr(2)[:] = c.view(np.uint32)
    group.run(kernel("v_dot2_f32_f16 v3, v0, v1, v2\nv_dot2c_f32_f16 v2, v0, v1"))
    expected = (pairs[0].astype(np.float32) * pairs[1]).sum(1) + c
    np.testing.assert_array_equal(group.vgpr(3).view(np.float32), expected)
    np.testing.assert_array_equal(group.vgpr(2).view(np.float32), expected)


def test_mixed_precision_and_half_selection():
    rng = np.random.default_rng(6)
    halves = rng.integers(-8, 9, (64, 2)).astype(np.float16)
    single = rng.integers(-8, 9, (2, 64)).astype(np.float32)
    group = make_group()
    group.vgpr(0)[:] = np.ascontiguousarray(halves).view(np.uint32)[:, 0]
    group.vgpr(1)[:], group.vgpr(2)[:] = single.view(np.uint32)
    group.vgpr(4)[:] = group.vgpr(5)[:] = 0x11112222
    group.run(
        kernel("""
        v_fma_mix_f32 v3, v0, v1, -v2 op_sel:[1,0,0] op_sel_hi:[1,0,0]
        v_fma_mixlo_f16 v4, |v1|, v0, v2 op_sel_hi:[0,1,0]
        v_fma_mixhi_f16 v5, v0, v0, v2 op_sel:[0,1,0] op_sel_hi:[1,1,0]
        v_pk_add_f16 v6, v0, v0 op_sel:[1,0] op_sel_hi:[0,0] neg_lo:[1,0]
        v_fma_f16 v5, v0, v0, v0 op_sel:[1,0,0,0]
    """)
    )
    low, high = halves[:, 0].astype(np.float32), halves[:, 1].astype(np.float32)
    np.testing.assert_array_equal(group.vgpr(3).view(np.float32), high * single[0] - single[1])
    mixed = (abs(single[0]) * low + single[1]).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(group.vgpr(4), 0x11110000 | mixed.astype(np.uint32))
    product = (low * high + single[1]).astype(np.float16).view(np.uint16).astype(np.uint32)
    fused = (high * low + low).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(group.vgpr(5), product << 16 | fused)
    sums = np.stack([-high + low, low + low], 1).astype(np.float16)
    np.testing.assert_array_equal(group.vgpr(6).view(np.float16).reshape(64, 2), sums)
