"""Instructions that gfx942 and gfx950 offer to faster kernels: each is executed here or refused by name.

Executed elsewhere: matrix instructions in test_matrix.py, loads to LDS and transposing reads in test_memory.py, row
broadcasts, row swaps and packed FP32 in test_lanes.py, v_cvt_pk_bf16_f32 and v_bitop3 in test_bit_operations.py."""

import ml_dtypes
import numpy as np
import pytest

from predecode.pipelines.emulation.isa.translate import UnsupportedInstruction, translate_kernel
from tests.pipelines.emulation.isa.wave_runner import S_ENDPGM, assemble, kernel, make_group

BOTH = ("gfx942", "gfx950")
# Nothing that emulation could show: priorities, caches, scheduling.
WITHOUT_EFFECT = [
    "s_setprio 3",
    "s_nop 7",
    "s_icache_inv",
    "s_dcache_inv",
    "s_dcache_wb",
    "buffer_wbl2 sc0 sc1",
    "buffer_wbl2 sc1",
    "buffer_inv sc1",
    "buffer_inv sc0 sc1",
    "s_waitcnt vmcnt(0) expcnt(0) lgkmcnt(0)",
]


@pytest.mark.parametrize("arch", BOTH)
def test_hints_and_cache_control_change_nothing(arch):
    group = make_group(strict=True)
    group.vgpr(1)[:] = np.arange(64)
    text = "\n".join(WITHOUT_EFFECT)
    group.run(kernel(f"{text}\nv_add_u32 v2, 1, v1\n{text}", arch, strict=True))
    assert not group.faults
    np.testing.assert_array_equal(group.vgpr(2), np.arange(1, 65))
    np.testing.assert_array_equal(group.vgpr(1), np.arange(64))


REFUSED = {
    "gfx942": [
        "v_mfma_f32_16x16x8_xf32 v[0:3], v[4:5], v[6:7], v[8:11]",
        "v_mfma_f32_16x16x16_f16 v[0:3], v[4:5], v[6:7], v[8:11] cbsz:1",
        "v_smfmac_f32_16x16x32_f16 v[0:3], v[4:5], v[8:11], v12 cbsz:1",
        "v_cvt_sr_fp8_f32 v0, v1, v2",
        "v_cvt_sr_bf8_f32 v0, v1, v2",
        "s_set_gpr_idx_on s0, gpr_idx(SRC0)",
        "s_movrels_b32 s0, s1",
        "v_pk_fmac_f16 v0, v1, v2",
        "ds_append v0",
        "ds_wrxchg2_rtn_b32 v[0:1], v2, v3, v4",
        "buffer_load_format_x v0, off, s[0:3], 0",
        "s_store_dword s0, s[2:3], 0",
        "s_atomic_add s0, s[2:3], 0",
        "s_getreg_b32 s0, hwreg(HW_REG_GPR_ALLOC)",
    ],
    "gfx950": [
        "v_cvt_scalef32_sr_fp8_f32 v0, v1, v2, v3",
        "v_cvt_scalef32_pk32_f32_fp6 v[0:31], v[32:37], v40",
        "v_cvt_scalef32_2xpk16_fp6_f32 v[0:5], v[6:21], v[22:37], v40",
        "v_cvt_sr_bf16_f32 v0, v1, v2",
        "v_mfma_f32_16x16x128_f8f6f4 v[0:3], v[4:11], v[12:15], v[0:3] cbsz:0 blgp:4",
    ],
}


@pytest.mark.parametrize(("arch", "text"), [(arch, text) for arch, texts in REFUSED.items() for text in texts])
def test_refused_by_name(arch, text):
    with pytest.raises(UnsupportedInstruction) as error:
        translate_kernel(assemble(text, arch) + S_ENDPGM, 0, "k", arch, False)
    assert text.split()[0] in str(error.value) and "at code+0x0:" in str(error.value)


# ---- Conversions with a block scale (gfx950): a float whose exponent is the scale ----

SMALL = {"fp8": ml_dtypes.float8_e4m3fn, "bf8": ml_dtypes.float8_e5m2, "fp4": ml_dtypes.float4_e2m1fn}
LARGE = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
SCALES = np.resize([2.0**-3, 1.0, 2.0**5, 3.0], 64).astype(np.float32)  # 3.0 counts as 2: only its exponent does
POWERS = np.resize([2.0**-3, 1.0, 2.0**5, 2.0], 64)


def _small_codes(kind: str) -> np.ndarray:
    """[64, 4] uint8, four codes of a lane that are finite (two in each byte for fp4)."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (64, 4)).astype(np.uint8)
    if kind == "fp8":
        codes[(codes & 0x7F) == 0x7F] = 0x7E
    if kind == "bf8":
        codes[(codes & 0x7C) == 0x7C] = 0x7B
    return codes


def _decoded(kind: str, codes: np.ndarray) -> np.ndarray:
    return codes.astype(np.uint8).view(SMALL[kind]).astype(np.float64)


def _words(pairs: np.ndarray) -> np.ndarray:
    """[64, 2] of a 16-bit type -> [64] uint32."""
    return np.ascontiguousarray(pairs).view(np.uint32)[:, 0]


def _widen(text: str, codes: np.ndarray):
    group = make_group()
    group.vgpr(2)[:] = codes.view(np.uint32)[:, 0]
    group.vgpr(3)[:] = SCALES.view(np.uint32)
    group.vgpr(8)[:] = 0xABCD1234
    group.run(kernel(text, "gfx950"))
    return group


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("small", ["fp8", "bf8"])
@pytest.mark.parametrize("half", [0, 1])
def test_pairs_from_8_bits(small, large, half):
    codes = _small_codes(small)
    target = "v[8:9]" if large == "f32" else "v8"
    group = _widen(f"v_cvt_scalef32_pk_{large}_{small} {target}, v2, v3 op_sel:[{half},0,0]", codes)
    values = _decoded(small, codes[:, 2 * half : 2 * half + 2]) * POWERS[:, None]
    with np.errstate(over="ignore"):
        expected = values.astype(LARGE[large])
    if large == "f32":
        got = np.stack([group.vgpr(8), group.vgpr(9)], axis=1)
        np.testing.assert_array_equal(got, expected.view(np.uint32))
    else:
        np.testing.assert_array_equal(group.vgpr(8), _words(expected))


@pytest.mark.parametrize("byte", range(4))
@pytest.mark.parametrize("small", ["fp8", "bf8"])
def test_single_numbers_from_8_bits(small, byte):
    codes = _small_codes(small)
    select = f"{byte & 1},{byte >> 1}"
    values = _decoded(small, codes[:, byte]) * POWERS
    group = _widen(f"v_cvt_scalef32_f32_{small} v8, v2, v3 op_sel:[{select},0]", codes)
    np.testing.assert_array_equal(group.vgpr(8), values.astype(np.float32).view(np.uint32))
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).view(np.uint16).astype(np.uint32)
    for high, expected in ((0, 0xABCD0000 | half), (1, half << 16 | 0x1234)):
        group = _widen(f"v_cvt_scalef32_f16_{small} v8, v2, v3 op_sel:[{select},{high}]", codes)
        np.testing.assert_array_equal(group.vgpr(8), expected)


@pytest.mark.parametrize("byte", range(4))
@pytest.mark.parametrize("large", LARGE)
def test_pairs_from_4_bits(large, byte):
    codes = _small_codes("fp4")
    target = "v[8:9]" if large == "f32" else "v8"
    group = _widen(f"v_cvt_scalef32_pk_{large}_fp4 {target}, v2, v3 op_sel:[{byte & 1},{byte >> 1},0]", codes)
    nibbles = np.stack([codes[:, byte] & 15, codes[:, byte] >> 4], axis=1)
    expected = (_decoded("fp4", nibbles) * POWERS[:, None]).astype(LARGE[large])
    if large == "f32":
        np.testing.assert_array_equal(np.stack([group.vgpr(8), group.vgpr(9)], axis=1), expected.view(np.uint32))
    else:
        np.testing.assert_array_equal(group.vgpr(8), _words(expected))


def _large_values(large: str, small: str) -> np.ndarray:
    """[64, 2] within the range of the small format after scaling, with ties and denormals."""
    rng = np.random.default_rng(1)
    most = {"fp8": 400.0, "bf8": 1000.0, "fp4": 5.9}[small]
    values = rng.uniform(-1, 1, (64, 2)) * most * 2.0 ** -rng.integers(0, 12, (64, 2))
    return (values * np.minimum(POWERS[:, None], 1000 / most)).astype(LARGE[large])


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("small", SMALL)
def test_pairs_to_small_floats(small, large):
    values = _large_values(large, small)
    group = make_group()
    group.vgpr(3)[:] = SCALES.view(np.uint32)
    group.vgpr(8)[:] = group.vgpr(9)[:] = 0xABCD1234
    if large == "f32":
        group.vgpr(1)[:], group.vgpr(2)[:] = values[:, 0].view(np.uint32), values[:, 1].view(np.uint32)
        operands = "v1, v2, v3"
    else:
        group.vgpr(2)[:] = _words(values)
        operands = "v2, v3"
    # The last selector, for fp4 the last two, chooses the part of the destination.
    sources = "0,0" if small == "fp4" or large != "f32" else "0,0,0"
    first, last = ("0,0", "1,1") if small == "fp4" else ("0", "1")
    name = f"v_cvt_scalef32_pk_{small}_{large}"
    lines = [f"{name} v8, {operands} op_sel:[{sources},{first}]", f"{name} v9, {operands} op_sel:[{sources},{last}]"]
    group.run(kernel("\n".join(lines), "gfx950"))
    codes = (values.astype(np.float64) / POWERS[:, None]).astype(np.float32).astype(SMALL[small])
    codes = codes.view(np.uint8).astype(np.uint32)
    if small == "fp4":
        byte = codes[:, 0] | codes[:, 1] << 4
        np.testing.assert_array_equal(group.vgpr(8), 0xABCD1200 | byte)
        np.testing.assert_array_equal(group.vgpr(9), byte << 24 | 0xCD1234)
    else:
        pair = codes[:, 0] | codes[:, 1] << 8
        np.testing.assert_array_equal(group.vgpr(8), 0xABCD0000 | pair)
        np.testing.assert_array_equal(group.vgpr(9), pair << 16 | 0x1234)
