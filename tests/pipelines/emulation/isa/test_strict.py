"""Strict mode: each defect is caught with a message that says what is wrong; its repaired twin passes."""

import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

LANES = np.arange(64)
DATA = np.arange(256, dtype=np.uint32)


def _run(text: str, waves: int = 1, sgprs: int = 8, vgprs: int = 4, arch: str = "gfx942"):
    """Fault messages.  s[0:1] points to DATA, v0 = lane, v1 = 4 * lane, v2 = 4 * ((lane + 64) % 128) by
    wave, v3 = wave."""
    group = make_group(waves=waves, lds_size=1024, scratch=64, strict=True, sgprs=sgprs, vgprs=vgprs)
    for i, wave in enumerate(group.waves):
        wave.sgpr[0], wave.sgpr[1] = DATA.ctypes.data & 0xFFFFFFFF, DATA.ctypes.data >> 32
        group.vgpr(0, i)[:], group.vgpr(1, i)[:], group.vgpr(3, i)[:] = LANES, 4 * (LANES + 64 * i), i
        group.vgpr(2, i)[:] = 4 * ((LANES + 64 * i + 64) % 128)
    group.run(kernel(text, arch, strict=True))
    return group


def _messages(*arguments, **options) -> list[str]:
    return [message for message, _, _ in _run(*arguments, **options).faults]


STORE = "global_store_dword v1, {}, s[0:1] offset:512"
# v[6:7] points to the lane's own dword of LDS, v[10:11] to the other wave's; or to byte 16 of scratch.
FLAT_LDS = (
    "s_mov_b64 s[4:5], src_shared_base\nv_mov_b32 v6, v1\nv_mov_b32 v7, s5\nv_mov_b32 v10, v2\nv_mov_b32 v11, s5\n"
)
FLAT_SCRATCH = "s_mov_b64 s[4:5], src_private_base\nv_mov_b32 v6, 16\nv_mov_b32 v7, s5\n"
# The destination overlaps a factor; v9, the high word of the addend, was never written.
OVERLAPPING_SUM = "v_mov_b32 v7, v0\nv_mov_b32 v8, 0\nv_mad_u64_u32 v[6:7], s[2:3], v7, 4, v[8:9]\n"
# name -> (defective code, part of the message, repaired code)
DEFECTS = {
    "undefined register stored": (
        STORE.format("v9"),
        "v9 is undefined (never written) and stored",
        "v_mov_b32 v9, v0\n" + STORE.format("v9"),
    ),
    "undefined through arithmetic": (
        "v_add_u32 v5, v9, v0\nv_lshlrev_b32 v6, 2, v5\n" + STORE.format("v6"),
        "v6 is undefined",
        "v_mov_b32 v9, 1\nv_add_u32 v5, v9, v0\nv_lshlrev_b32 v6, 2, v5\n" + STORE.format("v6"),
    ),
    "undefined address": (
        "global_load_dword v5, v9, s[0:1]",
        "v9 is undefined (never written) and used in an address",
        "v_mov_b32 v9, v1\nglobal_load_dword v5, v9, s[0:1]",
    ),
    "undefined scalar decides": (
        "s_cmp_eq_u32 s20, 0\ns_cbranch_scc1 end\nend:\ns_nop 0",
        "scc is undefined",
        "s_mov_b32 s20, 0\ns_cmp_eq_u32 s20, 0\ns_cbranch_scc1 end\nend:\ns_nop 0",
    ),
    "undefined EXEC": (
        "v_cmp_eq_u32 vcc, v9, v0\ns_and_saveexec_b64 s[2:3], vcc",
        "EXEC is made from an undefined value",
        "v_cmp_eq_u32 vcc, v1, v0\ns_and_saveexec_b64 s[2:3], vcc",
    ),
    "missing vmcnt wait": (
        "global_load_dword v5, v1, s[0:1]\nv_add_u32 v6, 1, v5",
        "v5 is used before the s_waitcnt vmcnt",
        "global_load_dword v5, v1, s[0:1]\ns_waitcnt vmcnt(0)\nv_add_u32 v6, 1, v5",
    ),
    "wait for too few": (
        "global_load_dword v5, v1, s[0:1]\nglobal_load_dword v6, v1, s[0:1]\ns_waitcnt vmcnt(1)\nv_add_u32 v7, v5, v6",
        "v6 is used before",
        "global_load_dword v5, v1, s[0:1]\nglobal_load_dword v6, v1, s[0:1]\ns_waitcnt vmcnt(1)\n"
        "v_add_u32 v7, 1, v5\ns_waitcnt vmcnt(0)\nv_add_u32 v7, v5, v6",
    ),
    "load result overwritten": (
        "global_load_dword v5, v1, s[0:1]\nv_mov_b32 v5, 0",
        "v5 is used before",
        "global_load_dword v5, v1, s[0:1]\ns_waitcnt vmcnt(0)\nv_mov_b32 v5, 0",
    ),
    "missing lgkmcnt wait on a scalar load": (
        "s_load_dword s10, s[0:1], 0\ns_add_u32 s11, s10, 1",
        "s10 is used before the s_waitcnt lgkmcnt(0)",
        "s_load_dword s10, s[0:1], 0\ns_waitcnt lgkmcnt(0)\ns_add_u32 s11, s10, 1",
    ),
    "scalar loads return in any order": (
        "s_load_dword s10, s[0:1], 0\ns_load_dword s12, s[0:1], 8\ns_waitcnt lgkmcnt(1)\ns_add_u32 s11, s10, 1",
        "s10 is used before the s_waitcnt lgkmcnt(0)",
        "s_load_dword s10, s[0:1], 0\ns_load_dword s12, s[0:1], 8\ns_waitcnt lgkmcnt(0)\ns_add_u32 s11, s10, 1",
    ),
    "flat read of LDS never written": (
        FLAT_LDS + "flat_load_dword v5, v[6:7]",
        "never written",
        FLAT_LDS + "flat_store_dword v[6:7], v0\ns_waitcnt vmcnt(0) lgkmcnt(0)\nflat_load_dword v5, v[6:7]",
    ),
    "missing lgkmcnt wait on LDS": (
        "ds_write_b32 v1, v0\nds_read_b32 v5, v1\nv_add_u32 v6, 1, v5",
        "v5 is used before the s_waitcnt lgkmcnt",
        "ds_write_b32 v1, v0\nds_read_b32 v5, v1\ns_waitcnt lgkmcnt(0)\nv_add_u32 v6, 1, v5",
    ),
    "LDS never written": (
        "ds_read_b32 v5, v1",
        "reads LDS byte 0x0, which was never written",
        "ds_write_b32 v1, v0\nds_read_b32 v5, v1",
    ),
    "load to LDS not awaited": (
        "s_mov_b32 m0, 0\nglobal_load_lds_dword v1, s[0:1]\nds_read_b32 v5, v1",
        "before the s_waitcnt vmcnt",
        "s_mov_b32 m0, 0\nglobal_load_lds_dword v1, s[0:1]\ns_waitcnt vmcnt(0)\nds_read_b32 v5, v1",
    ),
    "undefined value through LDS": (
        "ds_write_b32 v1, v9\nds_read_b32 v5, v1\ns_waitcnt lgkmcnt(0)\n" + STORE.format("v5"),
        "v5 is undefined",
        "ds_write_b32 v1, v0\nds_read_b32 v5, v1\ns_waitcnt lgkmcnt(0)\n" + STORE.format("v5"),
    ),
    "scratch never written": (
        "scratch_load_dword v5, off, off offset:8",
        "reads scratch byte 0x8 of the work-item, which was never written",
        "scratch_store_dword off, v0, off offset:8\nscratch_load_dword v5, off, off offset:8",
    ),
    "one scratch byte never written": (
        "scratch_store_short off, v0, off offset:4\nscratch_store_byte off, v0, off offset:7\n"
        "scratch_load_dword v5, off, off offset:4",
        "reads scratch byte 0x6 of the work-item",
        "scratch_store_short off, v0, off offset:4\nscratch_store_short off, v0, off offset:6\n"
        "scratch_load_dword v5, off, off offset:4",
    ),
    "one lane's scratch array never written": (
        "v_and_b32 v5, 28, v1\ns_mov_b64 exec, 0xff7f\nscratch_store_dword v5, v0, off\ns_mov_b64 exec, 0xffff\n"
        "scratch_load_dword v6, v5, off",
        "reads scratch byte 0x1c of the work-item",
        "v_and_b32 v5, 28, v1\ns_mov_b64 exec, 0xffff\nscratch_store_dword v5, v0, off\nscratch_load_dword v6, v5, off",
    ),
    "undefined value through scratch": (
        "scratch_store_dword off, v9, off\nscratch_load_dword v5, off, off\ns_waitcnt vmcnt(0)\n" + STORE.format("v5"),
        "v5 is undefined",
        "scratch_store_dword off, v0, off\nscratch_load_dword v5, off, off\ns_waitcnt vmcnt(0)\n" + STORE.format("v5"),
    ),
    "a lane that never spilled": (
        "s_mov_b64 exec, 0xff\nscratch_store_dword off, v0, off\ns_mov_b64 exec, -1\n"
        "scratch_load_dword v5, off, off\ns_waitcnt vmcnt(0)\n" + STORE.format("v5"),
        "v5 is undefined",
        "s_mov_b64 exec, 0xff\nscratch_store_dword off, v0, off\ns_mov_b64 exec, -1\n"
        "scratch_load_dword v5, off, off\ns_waitcnt vmcnt(0)\ns_mov_b64 exec, 0xff\n" + STORE.format("v5"),
    ),
    "flat read of scratch never written": (
        FLAT_SCRATCH + "flat_load_dword v5, v[6:7]",
        "reads scratch byte 0x10 of the work-item, which was never written",
        FLAT_SCRATCH + "flat_store_dword v[6:7], v0\ns_waitcnt vmcnt(0) lgkmcnt(0)\nflat_load_dword v5, v[6:7]",
    ),
    "high word of a sum whose addend's high word is undefined": (
        OVERLAPPING_SUM + STORE.format("v7"),
        "v7 is undefined",
        OVERLAPPING_SUM + STORE.format("v6"),
    ),
    "carry of a sum whose addend's high word is undefined": (
        OVERLAPPING_SUM + "s_cmp_eq_u32 s2, 0\ns_cbranch_scc1 end\nend:\ns_nop 0",
        "scc is undefined",
        OVERLAPPING_SUM + "s_cmp_eq_u32 s4, 0\ns_cbranch_scc1 end\nend:\ns_nop 0",
    ),
    "the undefined word of a moved pair": (
        "v_mov_b32 v9, v0\nv_mov_b64 v[6:7], v[8:9]\n" + STORE.format("v6"),
        "v6 is undefined",
        "v_mov_b32 v9, v0\nv_mov_b64 v[6:7], v[8:9]\n" + STORE.format("v7"),
    ),
    "undefined value through flat LDS": (
        FLAT_LDS + "flat_store_dword v[6:7], v9\ns_waitcnt vmcnt(0) lgkmcnt(0)\nflat_load_dword v5, v[6:7]\n"
        "s_waitcnt vmcnt(0) lgkmcnt(0)\n" + STORE.format("v5"),
        "v9 is undefined",
        FLAT_LDS + "flat_store_dword v[6:7], v0\ns_waitcnt vmcnt(0) lgkmcnt(0)\nflat_load_dword v5, v[6:7]\n"
        "s_waitcnt vmcnt(0) lgkmcnt(0)\n" + STORE.format("v5"),
    ),
    "matrix from undefined registers": (
        "v_mfma_f32_16x16x16_f16 v[20:23], v[10:11], v[12:13], 0\n" + STORE.format("v20"),
        "v20 is undefined",
        "v_mov_b64 v[10:11], 0\nv_mov_b64 v[12:13], 0\n"
        "v_mfma_f32_16x16x16_f16 v[20:23], v[10:11], v[12:13], 0\n" + STORE.format("v20"),
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_and_repair(name):
    defective, message, repaired = DEFECTS[name]
    faults = _messages(defective)
    assert len(faults) == 1 and message in faults[0], faults
    assert _messages(repaired) == []


WRITE = "ds_write_b32 v1, v0\n"
ONLY_WAVE_1 = "v_cmp_eq_u32 vcc, 1, v3\ns_and_b64 exec, exec, vcc\n"
FLAT_WRITE = FLAT_LDS + "flat_store_dword v[6:7], v0\n"
FLAT_DONE = "s_waitcnt vmcnt(0) lgkmcnt(0)\n"
HAZARDS = {
    "missing barrier after a write": (
        WRITE + "s_waitcnt lgkmcnt(0)\n" + ONLY_WAVE_1 + "ds_read_b32 v5, v2",
        "another wave wrote",
        WRITE + "s_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v5, v2",
    ),
    "missing wait before the barrier": (
        WRITE + "s_barrier\nds_read_b32 v5, v2",
        "with no completed write and barrier between",
        WRITE + "s_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v5, v2",
    ),
    "missing barrier before the next write": (
        WRITE + "s_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v5, v2\ns_waitcnt lgkmcnt(0)\n" + WRITE,
        "another wave read",
        WRITE + "s_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v5, v2\ns_waitcnt lgkmcnt(0)\ns_barrier\n" + WRITE,
    ),
    "flat write, flat read, no barrier": (
        FLAT_WRITE + FLAT_DONE + ONLY_WAVE_1 + "flat_load_dword v5, v[10:11]",
        "another wave wrote",
        FLAT_WRITE + FLAT_DONE + "s_barrier\nflat_load_dword v5, v[10:11]",
    ),
    "flat write, no wait before the barrier": (
        FLAT_WRITE + "s_barrier\nflat_load_dword v5, v[10:11]",
        "with no completed write and barrier between",
        FLAT_WRITE + FLAT_DONE + "s_barrier\nflat_load_dword v5, v[10:11]",
    ),
    "flat write, read by a DS instruction, no barrier": (
        FLAT_WRITE + FLAT_DONE + ONLY_WAVE_1 + "ds_read_b32 v5, v2",
        "another wave wrote",
        FLAT_WRITE + FLAT_DONE + "s_barrier\nds_read_b32 v5, v2",
    ),
    "flat read, then written by another wave": (
        FLAT_WRITE
        + FLAT_DONE
        + "s_barrier\nflat_load_dword v5, v[10:11]\n"
        + FLAT_DONE
        + "flat_store_dword v[6:7], v0",
        "another wave read",
        FLAT_WRITE
        + FLAT_DONE
        + "s_barrier\nflat_load_dword v5, v[10:11]\n"
        + FLAT_DONE
        + "s_barrier\nflat_store_dword v[6:7], v0",
    ),
    "flat atomic on what another wave is writing": (
        FLAT_WRITE + FLAT_DONE + ONLY_WAVE_1 + "flat_atomic_add v[10:11], v0",
        "another wave wrote",
        FLAT_WRITE + FLAT_DONE + "s_barrier\nflat_atomic_add v[10:11], v0",
    ),
    "two writers": ("ds_write_b32 v0, v0", "another wave wrote with no barrier", "ds_write_b32 v1, v0"),
}


@pytest.mark.parametrize("name", HAZARDS)
def test_hazards_between_waves(name):
    defective, message, repaired = HAZARDS[name]
    faults = _messages(defective, waves=2)
    assert len(faults) == 1 and message in faults[0], faults
    assert _messages(repaired, waves=2) == []


LEGAL = {
    "a store before its wait": "global_load_dword v5, v1, s[0:1]\ns_waitcnt vmcnt(0)\n" + STORE.format("v5"),
    "undefined high half": "v_mad_u64_u32 v[6:7], s[2:3], v0, 4, v[8:9]\nv_mov_b32 v8, 0\n"
    "v_mad_u64_u32 v[6:7], s[2:3], v0, 4, v[8:9]\n" + STORE.format("v6"),
    "flat atomics of both waves on one word": FLAT_LDS + "v_mov_b32 v6, 0\nds_write_b32 v1, v0\n"
    "s_waitcnt lgkmcnt(0)\ns_barrier\nflat_atomic_add v[6:7], v3\nflat_atomic_add v[6:7], v3",
    "unselected undefined value": "v_cmp_ge_u32 vcc, v0, v0\nv_cndmask_b32 v5, v9, v0, vcc\n" + STORE.format("v5"),
    "undefined lanes switched off": "s_mov_b64 exec, 15\nv_mov_b32 v5, v0\n" + STORE.format("v5"),
    "undefined value copied, never used": "v_mov_b32 v5, v9\nv_add_f32 v6, v5, v9\nds_write_b32 v1, v6",
    "atomics of both waves": "v_mov_b32 v5, 0\nds_write_b32 v1, v5\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_add_u32 v5, v0",
    "permuted data": "ds_bpermute_b32 v5, v1, v0\ns_waitcnt lgkmcnt(0)\n" + STORE.format("v5"),
    "DPP with a bound": "v_mov_b32_dpp v5, v0 row_shr:1 row_mask:0xf bank_mask:0xf bound_ctrl:0\n" + STORE.format("v5"),
    "spilled lane": "v_writelane_b32 v40, s2, 3\nscratch_store_dword off, v40, off\n"
    "v_readlane_b32 s9, v40, 3\n"
    "s_cmp_eq_u32 s9, 0\ns_cbranch_scc1 end\nend:\ns_nop 0",
}


@pytest.mark.parametrize("name", LEGAL)
def test_what_compilers_do_is_not_reported(name):
    assert _messages(LEGAL[name], waves=2) == []


def test_the_fault_has_lane_and_address():
    group = _run("s_mov_b64 exec, 0xf0\nv_mov_b32 v5, v0\ns_mov_b64 exec, -1\n" + STORE.format("v5"))
    ((_message, lane, address),) = group.faults
    assert lane == 0 and address == 16


def test_bank_conflicts_are_counted():
    for stride, expected in ((4, 0), (8, 2), (128, 62)):
        group = make_group(lds_size=8192, strict=True, vgprs=2)
        group.vgpr(1)[:] = stride * LANES
        group.run(kernel("ds_write_b32 v1, v0", strict=True))
        assert group.waves[0].counters.lds_bank_conflicts == expected, stride
