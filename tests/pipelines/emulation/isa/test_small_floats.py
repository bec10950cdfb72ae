"""FP8, bf16 and FP4 conversions, all codes both ways, in the flavour of each architecture."""

import ml_dtypes
import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

FP16_OVFL = 1 << 23
FORMATS = {
    "gfx942": (ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz),
    "gfx950": (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
}
DECODE = "\n".join(
    [
        "v_cvt_f32_fp8_sdwa v1, v0 src0_sel:BYTE_0",
        "v_cvt_f32_fp8_sdwa v2, v0 src0_sel:BYTE_3",
        "v_cvt_pk_f32_fp8_sdwa v[4:5], v0 src0_sel:WORD_0",
        "v_cvt_pk_f32_fp8_sdwa v[6:7], v0 src0_sel:WORD_1",
        "v_cvt_f32_bf8_sdwa v11, v0 src0_sel:BYTE_0",
        "v_cvt_f32_bf8_sdwa v12, v0 src0_sel:BYTE_3",
        "v_cvt_pk_f32_bf8_sdwa v[14:15], v0 src0_sel:WORD_0",
        "v_cvt_pk_f32_bf8_sdwa v[16:17], v0 src0_sel:WORD_1",
    ]
)
ENCODE = "\n".join(
    [
        "v_cvt_pk_fp8_f32 v2, v0, v1",
        "v_cvt_pk_fp8_f32 v2, v1, v0 op_sel:[0,0,1]",
        "v_cvt_pk_bf8_f32 v3, v0, -v1",
    ]
)


def _assert_same_floats(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    number = ~np.isnan(expected)
    np.testing.assert_array_equal(got[number].view(np.uint32), expected[number].view(np.uint32))


@pytest.mark.parametrize("arch", FORMATS)
def test_all_codes_decode(arch):
    run = kernel(DECODE, arch)
    for first in range(0, 256, 4):
        codes = np.arange(256, dtype=np.uint8)
        lanes = np.stack([np.roll(codes, -first - 64 * i)[:64] for i in range(4)], axis=1)  # [64, 4] bytes
        group = make_group()
        group.vgpr(0)[:] = np.ascontiguousarray(lanes).view(np.uint32)[:, 0]
        group.run(run)
        for base, fmt in ((0, FORMATS[arch][0]), (10, FORMATS[arch][1])):
            values = lanes.view(fmt).astype(np.float32)
            for register, byte in ((1, 0), (2, 3), (4, 0), (5, 1), (6, 2), (7, 3)):
                got = group.vgpr(base + register).view(np.float32).copy()
                _assert_same_floats(got, values[:, byte])


def _samples(fmt) -> np.ndarray:
    """[n] float32: all representable values, the middles between neighbours, their neighbours, overflow,
    random."""
    codes = np.arange(256, dtype=np.uint8).view(fmt).astype(np.float32)
    values = np.unique(codes[np.isfinite(codes)])
    middles = ((values[1:].astype(np.float64) + values[:-1]) / 2).astype(np.float32)
    largest = values[-1]
    edges = np.float32([largest * k for k in (1.03, 1.04, 1.0625, 1.07, 1.1, 2, 1e20)] + [np.inf, np.nan, 1e-40, 0.0])
    near = np.concatenate([np.nextafter(middles, np.float32(np.inf)), np.nextafter(middles, np.float32(-np.inf))])
    random = np.random.default_rng(0).normal(0, 1, 600).astype(np.float32) * np.exp2(
        np.random.default_rng(1).integers(-12, 10, 600)
    )
    every = np.concatenate([values, middles, near, edges, -edges, random.astype(np.float32)]).astype(np.float32)
    return np.resize(every, (every.size + 63) // 64 * 64)


def _expected_codes(values: np.ndarray, fmt, saturate: bool) -> np.ndarray:
    codes = values.astype(fmt)
    if saturate:
        # Overflow gives the largest number; a NaN stays.
        largest = np.float32(ml_dtypes.finfo(fmt).max)
        beyond = ~np.isfinite(codes.astype(np.float32)) & ~np.isnan(values)
        codes = np.where(beyond, np.copysign(largest, values).astype(fmt), codes)
    return codes.view(np.uint8)


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("arch", FORMATS)
def test_encoding_rounds_like_ml_dtypes(arch, saturate):
    run = kernel(ENCODE, arch)
    for position, fmt in enumerate(FORMATS[arch]):
        samples = _samples(fmt)
        for i in range(0, samples.size, 64):
            group = make_group()
            group.waves[0].mode |= FP16_OVFL if saturate else 0
            a, b = samples[i : i + 64], np.roll(samples, 17)[i : i + 64]
            group.vgpr(0)[:], group.vgpr(1)[:] = a.view(np.uint32), b.view(np.uint32)
            group.vgpr(3)[:] = 0xABCD0000
            group.run(run)
            got = group.vgpr(2 + position).view(np.uint8).reshape(64, 4)
            second = b if position == 0 else -b
            wanted = [_expected_codes(a, fmt, saturate), _expected_codes(second, fmt, saturate)]
            if position == 0:
                wanted += [wanted[1], wanted[0]]
            else:
                assert (group.vgpr(3) >> 16 == 0xABCD).all()
            for byte, codes in enumerate(wanted):
                nan = np.isnan(codes.view(fmt).astype(np.float32))
                np.testing.assert_array_equal(np.isnan(got[:, byte].copy().view(fmt).astype(np.float32)), nan)
                np.testing.assert_array_equal(got[:, byte][~nan], codes[~nan])


def test_the_flavours_differ():
    """The same code is another number on the other architecture."""
    group = make_group()
    group.vgpr(0)[:] = 0x40
    group.run(kernel(DECODE, "gfx942"))
    other = make_group()
    other.vgpr(0)[:] = 0x40
    other.run(kernel(DECODE, "gfx950"))
    assert group.vgpr(1).view(np.float32)[0] == 1.0 and other.vgpr(1).view(np.float32)[0] == 2.0


def test_bf16_pack_rounds_to_nearest_even():
    values = np.random.default_rng(3).integers(0, 2**32, 64, dtype=np.uint64).astype(np.uint32)
    values[:6] = [0x3F808000, 0x3F818000, 0x7F7FFFFF, 0x7F800000, 0x00008000, 0x80000001]
    values = np.where((values & 0x7F800000 == 0x7F800000) & (values & 0x7FFFFF != 0), 0x3F800000, values).astype(
        np.uint32
    )
    group = make_group()
    group.vgpr(0)[:], group.vgpr(1)[:] = values, values[::-1]
    group.run(kernel("v_cvt_pk_bf16_f32 v2, v0, v1", "gfx950"))
    bf16 = values.view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16)
    np.testing.assert_array_equal(group.vgpr(2) & 0xFFFF, bf16)
    np.testing.assert_array_equal(group.vgpr(2) >> 16, bf16[::-1])
