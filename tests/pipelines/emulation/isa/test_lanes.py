"""Data between lanes: DPP, SDWA, permutes, lane reads and writes, row swaps."""

import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import EXEC, kernel, make_group

LANES = np.arange(64)
# control text -> source lane of each lane, -1: none
DPP = {
    "quad_perm:[3,1,0,2]": (LANES & ~3) + np.array([3, 1, 0, 2])[LANES & 3],
    "row_shl:3": np.where(LANES % 16 < 13, LANES + 3, -1),
    "row_shr:5": np.where(LANES % 16 >= 5, LANES - 5, -1),
    "row_ror:4": (LANES & ~15) + (LANES % 16 - 4) % 16,
    "row_mirror": (LANES & ~15) + 15 - LANES % 16,
    "row_half_mirror": (LANES & ~7) + 7 - LANES % 8,
    "row_bcast:15": np.where(LANES >= 16, (LANES & ~15) - 1, -1),
    "row_bcast:31": np.where(LANES >= 32, 31, -1),
    "row_newbcast:6": (LANES & ~15) + 6,
    "wave_shr:1": LANES - 1,
    "wave_shl:1": np.where(LANES < 63, LANES + 1, -1),
    "wave_rol:1": (LANES + 1) % 64,
}


@pytest.mark.parametrize("mask", [2**64 - 1, 0xFFFF0000FF00F3F1])
@pytest.mark.parametrize("control", DPP)
def test_dpp(control, mask):
    enabled = np.array([mask >> lane & 1 for lane in range(64)], bool)
    group = make_group()
    data = np.arange(100, 164, dtype=np.uint32)
    group.vgpr(0)[:] = data
    group.vgpr(1)[:] = group.vgpr(2)[:] = group.vgpr(3)[:] = 7
    wave = group.waves[0]
    wave.sgpr[EXEC], wave.sgpr[EXEC + 1] = mask & 0xFFFFFFFF, mask >> 32
    group.run(
        kernel(f"""
        v_mov_b32_dpp v1, v0 {control} row_mask:0xf bank_mask:0xf
        v_mov_b32_dpp v2, v0 {control} row_mask:0xf bank_mask:0xf bound_ctrl:0
        v_add_u32_dpp v3, v0, v0 {control} row_mask:0x5 bank_mask:0xe
    """)
    )
    source = DPP[control]
    readable = (source >= 0) & enabled[source]
    np.testing.assert_array_equal(group.vgpr(1), np.where(enabled & readable, data[source], 7))
    np.testing.assert_array_equal(group.vgpr(2), np.where(enabled, np.where(readable, data[source], 0), 7))
    selected = enabled & readable & np.isin(LANES // 16, (0, 2)) & (LANES // 4 % 4 != 0)
    np.testing.assert_array_equal(group.vgpr(3), np.where(selected, data[source] + data, 7))


def test_sdwa():
    rng = np.random.default_rng(0)
    a, b, old = rng.integers(0, 2**32, (3, 64), dtype=np.uint64).astype(np.uint32)
    group = make_group()
    group.vgpr(0)[:], group.vgpr(1)[:] = a, b
    for register in (2, 3, 4):
        group.vgpr(register)[:] = old
    group.run(
        kernel("""
        v_add_u32_sdwa v2, v0, v1 dst_sel:BYTE_2 dst_unused:UNUSED_PRESERVE src0_sel:BYTE_1 src1_sel:WORD_1
        v_lshlrev_b32_sdwa v3, v0, sext(v1) dst_sel:WORD_1 dst_unused:UNUSED_PAD \
            src0_sel:BYTE_0 src1_sel:BYTE_3
        v_or_b32_sdwa v4, v0, sext(v1) dst_sel:BYTE_1 dst_unused:UNUSED_SEXT src0_sel:WORD_0 src1_sel:WORD_1
        v_cmp_eq_u32_sdwa s[4:5], v0, v1 src0_sel:BYTE_0 src1_sel:BYTE_0
    """)
    )
    total = (a >> 8 & 255) + (b >> 16)
    np.testing.assert_array_equal(group.vgpr(2), old & 0xFF00FFFF | (total & 255) << 16)
    shifted = (b.view(np.int32) >> 24).astype(np.int64) << (a & 31)
    np.testing.assert_array_equal(group.vgpr(3), (shifted.astype(np.uint64) & 0xFFFF).astype(np.uint32) << 16)
    byte = ((a & 0xFFFF) | (b.view(np.int32) >> 16).view(np.uint32)) & 255
    np.testing.assert_array_equal(group.vgpr(4), np.where(byte & 128, byte << 8 | 0xFFFF0000, byte << 8))
    wave = group.waves[0]
    equal = (a & 255) == (b & 255)
    assert (wave.sgpr[4] | wave.sgpr[5] << 32) == sum(int(e) << i for i, e in enumerate(equal))


def test_permutes_and_swizzle():
    rng = np.random.default_rng(1)
    data = rng.integers(0, 2**32, 64, dtype=np.uint64).astype(np.uint32)
    index = rng.permutation(64).astype(np.uint32)
    mask = 0xFFFFFF0FFFFFFFF5
    enabled = np.array([mask >> lane & 1 for lane in range(64)], bool)
    group = make_group()
    group.vgpr(0)[:], group.vgpr(1)[:] = index * 4, data
    wave = group.waves[0]
    wave.sgpr[EXEC], wave.sgpr[EXEC + 1] = mask & 0xFFFFFFFF, mask >> 32
    group.run(
        kernel("""
        ds_bpermute_b32 v2, v0, v1 offset:8
        ds_permute_b32 v3, v0, v1
        ds_swizzle_b32 v4, v1 offset:swizzle(BITMASK_PERM, "01pi0")
        ds_swizzle_b32 v5, v1 offset:swizzle(QUAD_PERM, 1, 0, 3, 2)
    """)
    )
    source = (index + 2) % 64
    np.testing.assert_array_equal(group.vgpr(2), np.where(enabled, np.where(enabled[source], data[source], 0), 0))
    pushed = np.zeros(64, np.uint32)
    pushed[index[enabled]] = data[enabled]
    np.testing.assert_array_equal(group.vgpr(3), np.where(enabled, pushed, 0))
    swizzled = (LANES & 32) | (LANES & 0b00110 | 0b01000) ^ 0b00010
    np.testing.assert_array_equal(group.vgpr(4), np.where(enabled, np.where(enabled[swizzled], data[swizzled], 0), 0))
    quad = LANES ^ 1
    np.testing.assert_array_equal(group.vgpr(5), np.where(enabled, np.where(enabled[quad], data[quad], 0), 0))


def test_lane_reads_writes_and_swaps():
    group = make_group()
    group.vgpr(0)[:], group.vgpr(1)[:] = LANES, LANES + 1000
    group.vgpr(2)[:], group.vgpr(3)[:] = LANES, LANES + 1000
    wave = group.waves[0]
    wave.sgpr[5] = 67  # lane 3: only six bits count
    wave.sgpr[EXEC] = 0xFFFFFFF0
    group.run(
        kernel(
            """
        v_readfirstlane_b32 s0, v0
        v_readlane_b32 s1, v0, s5
        v_writelane_b32 v4, s1, 9
        s_mov_b64 exec, -1
        v_permlane16_swap_b32 v0, v1
        v_permlane32_swap_b32 v2, v3
        v_swap_b32 v4, v5
    """,
            "gfx950",
        )
    )
    assert wave.sgpr[0] == 4 and wave.sgpr[1] == 3
    assert group.vgpr(5)[9] == 3 and group.vgpr(4)[9] == 0
    odd_row = LANES // 16 % 2 == 1
    np.testing.assert_array_equal(group.vgpr(0), np.where(odd_row, LANES - 16 + 1000, LANES))
    np.testing.assert_array_equal(group.vgpr(1), np.where(odd_row, LANES + 1000, LANES + 16))
    np.testing.assert_array_equal(group.vgpr(2), np.where(LANES >= 32, LANES - 32 + 1000, LANES))
    np.testing.assert_array_equal(group.vgpr(3), np.where(LANES >= 32, LANES + 1000, LANES + 32))


def test_packed_operations_and_their_selectors():
    rng = np.random.default_rng(2)
    f = rng.normal(size=(6, 64)).astype(np.float32)
    group = make_group()
    for i in range(6):
        group.vgpr(i)[:] = f[i].view(np.uint32)
    wave = group.waves[0]
    wave.sgpr[2], wave.sgpr[3] = (int(np.float32(x).view(np.uint32)) for x in (3.0, -5.0))
    group.run(
        kernel("""
        v_pk_mul_f32 v[10:11], v[0:1], v[2:3]
        v_pk_add_f32 v[12:13], v[0:1], v[2:3] op_sel:[1,0] op_sel_hi:[0,1] neg_lo:[0,1] neg_hi:[1,0]
        v_pk_fma_f32 v[14:15], v[0:1], s[2:3], v[4:5]
        v_pk_mov_b32 v[16:17], v[0:1], v[2:3] op_sel:[1,0]
        v_pk_mov_b32 v[18:19], v[0:1], v[2:3] op_sel:[0,1]
    """)
    )
    got = {i: group.vgpr(i).view(np.float32) for i in range(10, 20)}
    np.testing.assert_array_equal(got[10], f[0] * f[2])
    np.testing.assert_array_equal(got[11], f[1] * f[3])
    np.testing.assert_array_equal(got[12], f[1] - f[2])
    np.testing.assert_array_equal(got[13], -f[0] + f[3])
    np.testing.assert_allclose(got[14], f[0] * 3 + f[4], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got[15], f[1] * -5 + f[5], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal((got[16], got[17]), (f[1], f[2]))
    np.testing.assert_array_equal((got[18], got[19]), (f[0], f[3]))
