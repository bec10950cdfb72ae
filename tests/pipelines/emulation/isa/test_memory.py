"""Address forms, widths and range rules of global, buffer, scratch, scalar and LDS memory."""

import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

LANES = np.arange(64)


def _pointer(group, sgpr: int, array: np.ndarray, offset: int = 0) -> None:
    address = array.ctypes.data + offset
    group.waves[0].sgpr[sgpr], group.waves[0].sgpr[sgpr + 1] = address & 0xFFFFFFFF, address >> 32


def _lane_pointers(group, vgpr: int, addresses: np.ndarray) -> None:
    group.vgpr(vgpr)[:], group.vgpr(vgpr + 1)[:] = addresses & 0xFFFFFFFF, addresses >> 32


def test_global_loads_of_every_width():
    data = np.random.default_rng(0).integers(0, 256, 4096, dtype=np.uint8)
    group = make_group()
    _pointer(group, 0, data, 2048)
    _lane_pointers(group, 0, data.ctypes.data + 1024 + 16 * LANES)
    group.vgpr(2)[:] = 16 * LANES
    for register in range(20, 30):
        group.vgpr(register)[:] = 0x11223344
    group.run(
        kernel("""
        global_load_ubyte v10, v[0:1], off offset:3
        global_load_sbyte v11, v2, s[0:1] offset:-5
        global_load_ushort v12, v[0:1], off
        global_load_sshort v13, v[0:1], off offset:6
        global_load_dwordx2 v[14:15], v[0:1], off offset:-16
        global_load_dwordx3 v[16:18], v2, s[0:1]
        global_load_dwordx4 v[32:35], v2, s[0:1] offset:16
        global_load_short_d16 v20, v[0:1], off
        global_load_short_d16_hi v21, v[0:1], off
        global_load_ubyte_d16_hi v22, v[0:1], off
        global_load_sbyte_d16 v23, v[0:1], off
    """)
    )

    def read(kind, base, count=1):
        return np.stack([data[base + 16 * lane :][: np.dtype(kind).itemsize * count].view(kind) for lane in LANES])

    np.testing.assert_array_equal(group.vgpr(10), read("u1", 1027)[:, 0])
    np.testing.assert_array_equal(group.vgpr(11).view(np.int32), read("i1", 2043)[:, 0])
    np.testing.assert_array_equal(group.vgpr(12), read("u2", 1024)[:, 0])
    np.testing.assert_array_equal(group.vgpr(13).view(np.int32), read("i2", 1030)[:, 0])
    for register, base, words in ((14, 1008, 2), (16, 2048, 3), (32, 2064, 4)):
        for i in range(words):
            np.testing.assert_array_equal(group.vgpr(register + i), read("u4", base, words)[:, i])
    half, byte = read("u2", 1024)[:, 0].astype(np.uint32), read("u1", 1024)[:, 0].astype(np.uint32)
    np.testing.assert_array_equal(group.vgpr(20), 0x11220000 | half)
    np.testing.assert_array_equal(group.vgpr(21), half << 16 | 0x3344)
    np.testing.assert_array_equal(group.vgpr(22), byte << 16 | 0x3344)
    np.testing.assert_array_equal(
        group.vgpr(23), 0x11220000 | (byte.astype(np.uint8).view(np.int8).astype(np.uint32) & 0xFFFF)
    )
    assert group.waves[0].counters.bytes_loaded == 64 * (1 + 1 + 2 + 2 + 8 + 12 + 16 + 2 + 2 + 1 + 1)


def test_stores_and_atomics():
    data = np.zeros(4096, np.uint8)
    group = make_group()
    _lane_pointers(group, 0, data.ctypes.data + 16 * LANES)
    group.vgpr(2)[:] = 0xAABBCCDD
    group.vgpr(3)[:] = LANES
    group.vgpr(4)[:], group.vgpr(5)[:] = 7, 5 + LANES.sum()  # new value, value compared with
    counter = np.array([5, 0x3F800000], np.uint32)
    _pointer(group, 0, counter)
    group.run(
        kernel("""
        global_store_byte v[0:1], v2, off
        global_store_short_d16_hi v[0:1], v2, off offset:2
        global_store_dwordx3 v[0:1], v[2:4], off offset:4
        v_mov_b32 v6, 0
        v_mov_b32 v7, 1.0
        global_atomic_add v8, v6, v3, s[0:1] sc0
        global_atomic_add_f32 v6, v7, s[0:1] offset:4
        global_atomic_cmpswap v9, v6, v[4:5], s[0:1] sc0
    """)
    )
    row = np.frombuffer(b"\xdd\x00\xbb\xaa\xdd\xcc\xbb\xaa", np.uint8)
    for lane in LANES:
        np.testing.assert_array_equal(data[16 * lane :][:8], row)
        assert data[16 * lane + 8 :][:4].view(np.uint32)[0] == lane
    assert counter[0] == 7 and counter[1:].view(np.float32)[0] == 65.0
    assert group.vgpr(8)[0] == 5 and group.vgpr(8)[63] == 5 + LANES[:63].sum()
    assert group.vgpr(9)[0] == 5 + LANES.sum() and (group.vgpr(9)[1:] == 7).all()


def _descriptor(group, sgpr: int, array: np.ndarray, size: int) -> None:
    _pointer(group, sgpr, array)
    group.waves[0].sgpr[sgpr + 2], group.waves[0].sgpr[sgpr + 3] = size, 0x27000


def test_buffer_range_rules():
    """Out-of-range components read 0 and are not written; the 32-bit sum of lane and immediate offset
    wraps."""
    data = np.arange(1, 65, dtype=np.uint32)
    group = make_group()
    _descriptor(group, 0, data, 40 * 4)
    group.waves[0].sgpr[8] = 8
    group.vgpr(0)[:] = 4 * LANES
    group.vgpr(1)[:] = (4 * LANES - 16) & 0xFFFFFFFF
    group.vgpr(2)[:] = 99
    group.run(
        kernel("""
        buffer_load_dwordx2 v[10:11], v0, s[0:3], 0 offen
        buffer_load_dword v12, v1, s[0:3], 0 offen offset:16
        buffer_load_dword v13, v0, s[0:3], s8 offen offset:4
        buffer_load_ubyte v14, v0, s[0:3], 0 offen
        buffer_store_dword v2, v0, s[0:3], 0 offen offset:144
    """)
    )
    inside = np.where(LANES < 40, LANES + 1, 0)
    np.testing.assert_array_equal(group.vgpr(10), inside)
    np.testing.assert_array_equal(group.vgpr(11), np.where(LANES < 39, LANES + 2, 0))
    np.testing.assert_array_equal(group.vgpr(12), inside)
    np.testing.assert_array_equal(group.vgpr(13), np.where(LANES < 37, LANES + 4, 0))
    np.testing.assert_array_equal(group.vgpr(14), inside)
    np.testing.assert_array_equal(data, np.where((LANES >= 36) & (LANES < 40), 99, LANES + 1))


@pytest.mark.parametrize("arch", ["gfx942", "gfx950"])
def test_loads_to_lds(arch):
    data = np.arange(1000, 1512, dtype=np.uint32)
    group = make_group(lds_size=4096)
    _descriptor(group, 0, data, 50 * 4)
    _lane_pointers(group, 0, data.ctypes.data + 4 * LANES[::-1])
    _lane_pointers(group, 4, data.ctypes.data + 16 * LANES)
    group.vgpr(2)[:] = 4 * LANES
    group.lds[:] = 0xEE
    wide = "s_mov_b32 m0, 1024\nglobal_load_lds_dwordx4 v[4:5], off" if arch == "gfx950" else ""
    group.run(
        kernel(
            f"""
        s_mov_b32 m0, 256
        global_load_lds_dword v[0:1], off offset:4
        s_movk_i32 m0, 0x300
        buffer_load_dword v2, s[0:3], 0 offen lds
        {wide}
    """,
            arch,
        )
    )
    words = group.lds[:4096].view(np.uint32)
    np.testing.assert_array_equal(words[65:129], data[LANES[::-1] + 1])
    np.testing.assert_array_equal(words[192:256], np.where(LANES < 50, 1000 + LANES, 0))
    if wide:
        np.testing.assert_array_equal(words[256:512], data[:256])


def test_scalar_loads():
    data = np.arange(64, dtype=np.uint32)
    group = make_group()
    _pointer(group, 2, data, 64)
    _descriptor(group, 12, data, 32)
    group.waves[0].sgpr[4] = 8
    group.run(
        kernel("""
        s_load_dword s20, s[2:3], s4
        s_load_dword s21, s[2:3], s4 offset:12
        s_load_dwordx4 s[24:27], s[2:3], -16
        s_load_dwordx8 s[32:39], s[2:3], 0x20
        s_buffer_load_dwordx2 s[40:41], s[12:15], 28
    """)
    )
    sgpr = group.waves[0].sgpr
    assert sgpr[20] == 18 and sgpr[21] == 21 and list(sgpr[24:28]) == [12, 13, 14, 15]
    assert list(sgpr[32:40]) == list(range(24, 32)) and list(sgpr[40:42]) == [7, 0]


def test_lds_widths_pairs_and_atomics():
    group = make_group(lds_size=8192)
    group.vgpr(0)[:] = 16 * LANES
    for i in range(4):
        group.vgpr(30 + i)[:] = LANES * 10 + i
    group.vgpr(6)[:] = 2048
    group.vgpr(7)[:] = 8 * LANES
    group.run(
        kernel("""
        ds_write_b128 v0, v[30:33]
        ds_read_b96 v[10:12], v0
        ds_read2_b32 v[14:15], v0 offset0:1 offset1:3
        ds_write2st64_b32 v0, v30, v31 offset0:8 offset1:12
        ds_read2st64_b32 v[16:17], v0 offset0:12 offset1:8
        ds_read2_b64 v[20:23], v7 offset0:0 offset1:1
        ds_read_u16_d16_hi v32, v0 offset:8
        ds_write_b8_d16_hi v0, v32 offset:15
        ds_read_u8 v24, v0 offset:15
        v_mov_b32 v8, 3
        ds_write_b32 v6, v8 offset:4096
        ds_add_rtn_u32 v25, v6, v8 offset:4096
        ds_max_u32 v6, v30 offset:4096
        ds_read_b32 v26, v6 offset:4096
        v_mov_b32 v9, 630
        ds_cmpst_rtn_b32 v27, v6, v9, v8 offset:4096
    """)
    )
    for i in range(3):
        np.testing.assert_array_equal(group.vgpr(10 + i), LANES * 10 + i)
    np.testing.assert_array_equal(group.vgpr(14), LANES * 10 + 1)
    np.testing.assert_array_equal(group.vgpr(15), LANES * 10 + 3)
    np.testing.assert_array_equal(group.vgpr(16), LANES * 10 + 1)
    np.testing.assert_array_equal(group.vgpr(17), LANES * 10)
    flat = (np.arange(64)[:, None] * 10 + np.arange(4)).reshape(-1)
    for i in range(4):
        np.testing.assert_array_equal(group.vgpr(20 + i), flat[2 * LANES + i])
    np.testing.assert_array_equal(group.vgpr(24), (LANES * 10 + 2) & 255)
    np.testing.assert_array_equal(group.vgpr(25), 3 + 3 * LANES)
    assert (group.vgpr(26) == 630).all()
    assert group.vgpr(27)[0] == 630 and (group.vgpr(27)[1:] == 3).all()


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_transposing_reads(bits):
    """Each group of 16 lanes reads a matrix of 64 / bits rows by 16 columns, row-major, and gets its
    columns."""
    rows = 64 // bits
    matrices = np.random.default_rng(bits).integers(0, 1 << bits, (4, rows, 16))
    group = make_group(lds_size=512)
    stream = sum(int(value) << i * bits for i, value in enumerate(matrices.reshape(-1)))
    group.lds[:512] = np.frombuffer(stream.to_bytes(512, "little"), np.uint8)
    group.vgpr(0)[:] = 8 * LANES
    group.run(kernel(f"ds_read_b64_tr_b{bits} v[2:3], v0", "gfx950"))
    for lane in LANES:
        got = int(group.vgpr(2)[lane]) | int(group.vgpr(3)[lane]) << 32
        assert [got >> bits * i & (1 << bits) - 1 for i in range(rows)] == list(matrices[lane // 16, :, lane % 16])


def test_scratch_and_flat_apertures():
    group = make_group(lds_size=256, scratch=64)
    wave = group.waves[0]
    group.vgpr(0)[:] = LANES
    group.vgpr(1)[:] = 4 * (LANES % 8)
    group.vgpr(2)[:] = 4 * LANES
    wave.sgpr[32] = 16
    group.run(
        kernel("""
        scratch_store_dword off, v0, s32 offset:4
        scratch_load_dword v5, off, s32 offset:4
        scratch_store_dword v1, v0, off offset:24
        s_mov_b64 s[0:1], src_shared_base
        v_mov_b32 v3, s1
        flat_store_dword v[2:3], v0
        s_mov_b64 s[0:1], src_private_base
        v_mov_b32 v8, 20
        v_mov_b32 v9, s1
        flat_load_dword v6, v[8:9]
    """)
    )
    np.testing.assert_array_equal(group.vgpr(5), LANES)
    np.testing.assert_array_equal(group.vgpr(6), LANES)
    np.testing.assert_array_equal(group.lds[:256].view(np.uint32), LANES)


@pytest.mark.parametrize(
    "text,message",
    [
        ("v_mov_b32 v0, 0x200\nds_read_b32 v1, v0", "LDS access beyond"),
        ("scratch_load_dwordx2 v[0:1], off, off offset:60", "scratch access beyond"),
        ("s_setreg_imm32_b32 hwreg(HW_REG_MODE, 0, 2), 3", "MODE asks for a rounding"),
        ("s_mov_b64 s[0:1], 0x1000\ns_setpc_b64 s[0:1]", "jump to an address"),
        ("s_trap 2", "s_trap 2"),
    ],
)
def test_faults_in_both_modes(text, message):
    for strict in (False, True):
        group = make_group(lds_size=512, scratch=64, strict=strict)
        group.run(kernel(text, strict=strict))
        assert len(group.faults) == 1 and message in group.faults[0][0], group.faults
