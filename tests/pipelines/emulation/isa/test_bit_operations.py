"""Operations whose pseudo-code the evaluator cannot follow (tables, nested functions), against Python written from
the same definitions: byte permutes and differences, saturating packs, truth tables, conversions that round to zero."""

import math
from collections.abc import Callable
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

from tests.pipelines.emulation.isa.wave_runner import kernel, make_group

SPECIAL = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7F80FF00, 0x80017FFE, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
SPECIAL_F32 = [0.0, -0.0, 1.0, -1.0, 65504.0, 65519.99, 65520.0, -65536.0, 1e30, -1e30, math.inf, -math.inf, math.nan]
SPECIAL_F32 += [2.0**-24, 1.99 * 2.0**-24, -(2.0**-25), 2.0**-26, 2.0**-14, 1.0009765, -1.9999, 3.3895e38, 1.00390625]


def _bytes(word: int) -> list[int]:
    return [word >> 8 * i & 255 for i in range(4)]


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _permute(a: int, b: int, c: int) -> int:
    """Byte i of the result is chosen by byte i of c: 0..7 of b then a, 8..11 a sign, 12 zero, above all ones."""
    source = _bytes(b) + _bytes(a)
    chosen = []
    for selector in _bytes(c):
        if selector < 8:
            chosen.append(source[selector])
        elif selector < 12:
            chosen.append(255 if source[2 * (selector - 8) + 1] & 128 else 0)
        else:
            chosen.append(0 if selector == 12 else 255)
    return sum(byte << 8 * i for i, byte in enumerate(chosen))


def _sum_of_byte_differences(a: int, b: int, c: int) -> int:
    return sum(abs(x - y) for x, y in zip(_bytes(a), _bytes(b), strict=True)) + c


def _saturate(value: int, low: int, high: int) -> int:
    return min(max(value, low), high) & 255


def _pack(low: int, high: int, bits: int) -> int:
    return low | high << bits


def _truth_table(table: int, bits: int) -> Callable[[int, int, int], int]:
    def result(a: int, b: int, c: int) -> int:
        word = 0
        for i in range(bits):
            word |= (table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | (c >> i & 1)) & 1) << i
        return word

    return result


def _float(bits: int) -> float:
    return float(np.uint32(bits).view(np.float32))


def _half_towards_zero(bits: int) -> int:
    """The largest half in magnitude that is not above the float in magnitude."""
    value = _float(bits)
    sign = 0x8000 if bits >> 31 else 0
    if math.isnan(value):
        return 0x7E00
    if math.isinf(value):
        return sign | 0x7C00
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    return sign | int(np.searchsorted(halves, abs(value), side="right")) - 1


def _bfloat16(bits: int) -> int:
    return int(np.uint32(bits).view(np.float32).astype(ml_dtypes.bfloat16).view(np.uint16))


def _offset_quarter(a: int) -> int:
    return int(np.float32(Fraction(_signed(a, 4), 16)).view(np.uint32))


WORD, HALF = 0xFFFFFFFF, 0xFFFF
# text -> (bits compared, definition over the words a, b, c of v0, v1, v2)
EVERYWHERE = {
    "v_perm_b32 {}, v0, v1, v3": (WORD, _permute),
    "v_sad_u8 {}, v0, v1, v2": (WORD, _sum_of_byte_differences),
    "v_sad_hi_u8 {}, v0, v1, v2": (WORD, lambda a, b, c: (_sum_of_byte_differences(a, b, 0) << 16) + c),
    "v_sad_u16 {}, v0, v1, v2": (WORD, lambda a, b, c: abs((a & HALF) - (b & HALF)) + abs((a >> 16) - (b >> 16)) + c),
    "v_sad_u32 {}, v0, v1, v2": (WORD, lambda a, b, c: abs(a - b) + c),
    "v_sat_pk_u8_i16 {}, v0": (
        HALF,
        lambda a, b, c: _pack(_saturate(_signed(a, 16), 0, 255), _saturate(_signed(a >> 16, 16), 0, 255), 8),
    ),
    "v_cvt_off_f32_i4 {}, v0": (WORD, lambda a, b, c: _offset_quarter(a)),
}
TABLES = (0, 1, 2, 0x6A, 0x80, 0x96, 0xCA, 0xE8, 0xFF)
GFX950 = {
    "v_ashr_pk_i8_i32 {}, v0, v1, v2": (
        HALF,
        lambda a, b, c: _pack(*(_saturate(_signed(x, 32) >> (c & 31), -128, 127) for x in (a, b)), 8),
    ),
    "v_ashr_pk_u8_i32 {}, v0, v1, v2": (
        HALF,
        lambda a, b, c: _pack(*(_saturate(_signed(x, 32) >> (c & 31), 0, 255) for x in (a, b)), 8),
    ),
    **{f"v_bitop3_b32 {{}}, v0, v1, v2 bitop3:{t:#x}": (WORD, _truth_table(t, 32)) for t in TABLES},
    **{f"v_bitop3_b16 {{}}, v0, v1, v2 bitop3:{t:#x}": (HALF, _truth_table(t, 16)) for t in TABLES},
}
FLOATS = {
    "v_cvt_pkrtz_f16_f32 {}, v0, v1": (_half_towards_zero, 0x7C00),
    "v_cvt_pk_bf16_f32 {}, v0, v1": (_bfloat16, 0x7F80),
}


def _run(texts, arch: str, words: np.ndarray):
    """v0..v2: words; v3: byte selectors 0..15 made from v2.  The results, one register each."""
    group = make_group()
    for i in range(3):
        group.vgpr(i)[:] = words[i]
    group.vgpr(3)[:] = words[2] & 0x0F0F0F0F
    group.vgpr(3)[5] = 0x100D20FF
    for i in range(len(texts)):
        group.vgpr(10 + i)[:] = 0xABCD1234
    group.run(kernel("\n".join(text.format(f"v{10 + i}") for i, text in enumerate(texts)), arch))
    assert not group.faults
    return group


def _words(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**32, (3, 64), dtype=np.uint64)
    return np.where(rng.random((3, 64)) < 0.5, rng.choice(SPECIAL, (3, 64)), words).astype(np.uint32)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("arch", "table"), [("gfx942", EVERYWHERE), ("gfx950", EVERYWHERE | GFX950)])
def test_bits(arch, table, seed):
    words = _words(seed)
    group = _run(list(table), arch, words)
    for i, (text, (mask, definition)) in enumerate(table.items()):
        third = group.vgpr(3) if "perm" in text else words[2]
        lanes = zip(words[0], words[1], third, strict=True)
        expected = [definition(int(a), int(b), int(c)) & mask for a, b, c in lanes]
        np.testing.assert_array_equal(group.vgpr(10 + i) & mask, np.array(expected, np.uint32), text)


@pytest.mark.parametrize("high", [0, 1])
def test_bitop3_of_halves_keeps_the_other_half(high):
    words = _words(9)
    selects = f"op_sel:[{high},{1 - high},{high},{high}]"
    group = _run([f"v_bitop3_b16 {{}}, v0, v1, v2 bitop3:0x96 {selects}"], "gfx950", words)
    a, b, c = (words[i].astype(np.uint32) >> 16 * chosen for i, chosen in enumerate((high, 1 - high, high)))
    result = (a ^ b ^ c) & HALF
    expected = result << 16 | 0x1234 if high else result | 0xABCD0000
    np.testing.assert_array_equal(group.vgpr(10), expected)


@pytest.mark.parametrize("text", FLOATS)
def test_conversions_to_pairs(text):
    definition, infinity = FLOATS[text]
    rng = np.random.default_rng(3)
    values = (rng.normal(size=(3, 64)) * 2.0 ** rng.integers(-30, 30, (3, 64))).astype(np.float32)
    values[:, : len(SPECIAL_F32)] = SPECIAL_F32
    values[1] = values[1][::-1]
    words = values.view(np.uint32)
    group = _run([text], "gfx950", words)
    for lane in range(64):
        for half in range(2):
            got = int(group.vgpr(10)[lane]) >> 16 * half & HALF
            wanted = definition(int(words[half, lane]))
            both_nan = (got & 0x7FFF) > infinity and (wanted & 0x7FFF) > infinity
            assert got == wanted or both_nan, f"{values[half, lane]}: got {got:04x}, expected {wanted:04x}"


def test_bits_set_below_the_lane():
    """v_mbcnt counts the mask's bits of lower lanes: of the low 32 lanes, then of the high ones."""
    words = _words(5)
    group = _run(["v_mbcnt_lo_u32_b32 {}, v0, v2", "v_mbcnt_hi_u32_b32 {}, v1, v2"], "gfx942", words)
    for lane in range(64):
        below = (1 << lane) - 1
        for register, mask, half in ((10, words[0], below & 0xFFFFFFFF), (11, words[1], below >> 32)):
            expected = (int(words[2, lane]) + (int(mask[lane]) & half).bit_count()) & WORD
            assert group.vgpr(register)[lane] == expected, (register, lane)
