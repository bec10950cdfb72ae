"""Branches, loops, calls, barriers, yields, and refusals at translation."""

import numpy as np
import pytest

from predecode.pipelines.emulation.isa.translate import UnsupportedInstruction, translate_kernel
from tests.pipelines.emulation.isa.wave_runner import (
    BARRIER,
    ENDED,
    S_ENDPGM,
    YIELDED,
    assemble,
    kernel,
    make_group,
)

LANES = np.arange(64)


def test_divergent_loop():
    """Each lane halves or triples its own number until 1, counting steps."""
    group = make_group()
    group.vgpr(0)[:] = LANES + 1
    group.vgpr(1)[:] = 0
    group.run(
        kernel("""
        s_mov_b64 s[2:3], exec
        loop:
        v_cmp_ne_u32 vcc, 1, v0
        s_and_b64 exec, exec, vcc
        s_cbranch_execz done
        v_and_b32 v2, 1, v0
        v_cmp_eq_u32 vcc, 1, v2
        v_mul_lo_u32 v3, v0, 3
        v_add_u32 v3, 1, v3
        v_lshrrev_b32 v4, 1, v0
        v_cndmask_b32 v0, v4, v3, vcc
        v_add_u32 v1, 1, v1
        s_branch loop
        done:
        s_mov_b64 exec, s[2:3]
    """)
    )

    def steps(n):
        count = 0
        while n != 1:
            n, count = (3 * n + 1 if n & 1 else n // 2), count + 1
        return count

    np.testing.assert_array_equal(group.vgpr(1), [steps(n + 1) for n in LANES])


def test_call_and_return():
    group = make_group()
    group.run(
        kernel("""
        s_mov_b32 s0, 1
        s_getpc_b64 s[4:5]
        here:
        s_add_u32 s4, s4, function-here
        s_addc_u32 s5, s5, 0
        s_swappc_b64 s[30:31], s[4:5]
        s_swappc_b64 s[30:31], s[4:5]
        s_branch end
        function:
        s_add_u32 s0, s0, 10
        s_setpc_b64 s[30:31]
        end:
        s_nop 0
    """)
    )
    assert not group.faults and group.waves[0].sgpr[0] == 21


def test_barrier_and_sleep_return_and_resume():
    run = kernel("v_mov_b32 v0, 1\ns_barrier\nv_add_u32 v0, 1, v0\ns_sleep 1\nv_add_u32 v0, 1, v0")
    group = make_group()
    import ctypes

    wave = ctypes.byref(group.waves[0])
    values = []
    for expected in (BARRIER, YIELDED, ENDED):
        assert run(wave) == expected
        values.append(int(group.vgpr(0)[5]))
    assert values == [1, 2, 3]
    counters = group.waves[0].counters
    assert counters.valu == 3 and counters.other == 3


def test_waves_exchange_through_lds():
    """Sixteen waves write, meet, and read each other's values."""
    group = make_group(waves=16, lds_size=4096)
    for i, _wave in enumerate(group.waves):
        group.vgpr(0, i)[:] = 4 * (64 * i + LANES)
        group.vgpr(1, i)[:] = 4 * (1023 - 64 * i - LANES)
        group.vgpr(2, i)[:] = 64 * i + LANES
    group.run(kernel("ds_write_b32 v0, v2\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v1\ns_waitcnt lgkmcnt(0)"))
    for i in range(16):
        np.testing.assert_array_equal(group.vgpr(3, i), 1023 - 64 * i - LANES)


@pytest.mark.parametrize(
    "text,name",
    [
        ("v_cubeid_f32 v0, v1, v2, v3", "v_cubeid_f32"),
        ("v_mfma_f32_32x32x2_f32 v[0:15], v16, v17, v[0:15] cbsz:1", "v_mfma_f32_32x32x2_f32"),
        ("s_getreg_b32 s0, hwreg(HW_REG_TRAPSTS)", "s_getreg_b32"),
    ],
)
def test_an_instruction_not_covered_is_named(text, name):
    code = assemble("v_mov_b32 v0, 0\n" + text) + S_ENDPGM
    with pytest.raises(UnsupportedInstruction) as error:
        translate_kernel(code, 0, "k", "gfx942", False)
    message = str(error.value)
    words = code[4:-4]
    assert name in message and "at code+0x4:" in message
    assert f"{int.from_bytes(words[:4], 'little'):08x}" in message


def test_control_flow_that_leaves_the_code_is_refused():
    with pytest.raises(Exception, match="leaves its code"):
        translate_kernel(assemble("s_branch 100"), 0, "k", "gfx942", False)


def test_denormal_mode():
    """MODE with single-precision denormals flushed: multiplication and FP8 decoding."""
    text = "v_mul_f32 v1, 1.0, v0\nv_cvt_f32_fp8 v3, v2\nv_mul_f32 v4, v0, v5"
    results = []
    for mode in (0xF0, 0xC0):
        group = make_group()
        group.waves[0].mode = 0x200 | mode
        group.vgpr(0)[:] = 0x00400000
        group.vgpr(2)[:] = 0x01
        group.vgpr(5)[:] = np.float32(2.0**20).view(np.uint32)
        group.run(kernel(text))
        results.append((int(group.vgpr(1)[0]), float(group.vgpr(3).view(np.float32)[0]), int(group.vgpr(4)[0])))
    assert results[0][0] == 0x00400000 and results[1][0] == 0
    assert results[0][1] == results[1][1] == 2.0**-10
    assert results[0][2] != 0 and results[1][2] == 0
