/* FP8, FP6 and FP4 in both directions.
 * FP8_FNUZ (gfx942): E4M3 bias 8, E5M2 bias 16, one NaN 0x80, no infinity, no -0.
 * OCP (gfx950): E4M3FN bias 7 (NaN s.1111.111), E5M2 bias 15 (with infinity), E2M3, E3M2, E2M1. */
#ifndef PREDECODE_EMULATION_SMALL_FLOATS_H
#define PREDECODE_EMULATION_SMALL_FLOATS_H

#include "numbers.h"

enum { FP16_OVFL = 1 << 23 }; /* MODE bit: conversions that overflow give the largest number */

/* sign, exponent and mantissa fields to a float, without passing through single-precision denormals (which
 * a kernel may have switched off) */
INLINE float small_float(uint32_t code, int exponent_bits, int mantissa_bits, int bias)
{
    uint32_t magnitude = code & ((1u << (exponent_bits + mantissa_bits)) - 1);
    uint32_t sign = (code >> (exponent_bits + mantissa_bits) & 1) << 31;
    float denormal = (float)(int32_t)magnitude * as_f32((uint32_t)(128 - bias - mantissa_bits) << 23);
    float normal = as_f32((magnitude << (23 - mantissa_bits)) + ((uint32_t)(127 - bias) << 23));
    return as_f32(bits_f32(magnitude >> mantissa_bits ? normal : denormal) | sign);
}
INLINE float fnuz_e4m3(uint32_t code) { return code == 0x80 ? __builtin_nanf("") : small_float(code, 4, 3,
                       8); }
INLINE float fnuz_e5m2(uint32_t code) { return code == 0x80 ? __builtin_nanf("") : small_float(code, 5, 2,
                       16); }
INLINE float ocp_e4m3(uint32_t code)
{
    return (code & 0x7f) == 0x7f ? __builtin_nanf("") : small_float(code, 4, 3, 7);
}
INLINE float ocp_e5m2(uint32_t code) { return as_f16(code << 8); }
INLINE float ocp_e2m3(uint32_t code) { return small_float(code, 2, 3, 1); }
INLINE float ocp_e3m2(uint32_t code) { return small_float(code, 3, 2, 3); }
INLINE float ocp_e2m1(uint32_t code) { return small_float(code, 2, 1, 1); }

/* Round a finite or infinite float to a format with `mantissa` bits and smallest normal exponent `least`:
 * the magnitude's code without overflow handling (exponent field and mantissa run on). */
INLINE uint32_t round_small(float value, int mantissa, int least)
{
    uint32_t magnitude = bits_f32(value) & 0x7fffffff;
    /* Adding 1.5 * 2^k rounds a float below the smallest normal to a multiple of the smallest denormal. */
    float anchor = as_f32((uint32_t)(least - mantissa + 23 + 127) << 23);
    uint32_t denormal = bits_f32(as_f32(magnitude) + anchor) - bits_f32(anchor);
    int drop = 23 - mantissa;
    uint32_t rounded = magnitude + ((1u << (drop - 1)) - 1) + (magnitude >> drop & 1);
    uint32_t normal = (rounded >> drop) - ((uint32_t)(least + 126) << mantissa);
    return magnitude < (uint32_t)(least + 127) << 23 ? denormal : normal;
}
INLINE uint32_t to_fnuz(float value, int mantissa, int least, int saturate)
{
    uint32_t code = round_small(value, mantissa, least);
    uint32_t sign = bits_f32(value) >> 24 & 0x80;
    int infinite = !finite_f32(value);
    uint32_t bound = code > 0x7f ? 0x7f : code;
    uint32_t number = bound == 0 ? 0 : bound | sign; /* there is no negative zero */
    return value != value || ((infinite || code > 0x7f) && !saturate) ? 0x80 : number;
}
INLINE uint32_t to_fnuz_e4m3(float value, int saturate) { return to_fnuz(value, 3, -7, saturate); }
INLINE uint32_t to_fnuz_e5m2(float value, int saturate) { return to_fnuz(value, 2, -15, saturate); }
INLINE uint32_t to_ocp_e4m3(float value, int saturate)
{
    uint32_t code = round_small(value, 3, -6);
    uint32_t sign = bits_f32(value) >> 24 & 0x80;
    int over = code > 0x7e || !finite_f32(value);
    return sign | (value != value ? 0x7f : over ? (saturate ? 0x7e : 0x7f) : code);
}
INLINE uint32_t to_ocp_e5m2(float value, int saturate)
{
    uint32_t code = round_small(value, 2, -14);
    uint32_t sign = bits_f32(value) >> 24 & 0x80;
    int over = code > 0x7b || !finite_f32(value);
    return sign | (value != value ? 0x7e : over ? (saturate ? 0x7b : 0x7c) : code);
}
/* FP4 and FP6 have no NaN and no infinity: they always saturate. */
INLINE uint32_t to_ocp_e2m1(float value)
{
    uint32_t code = round_small(value, 1, 0);
    return (bits_f32(value) >> 28 & 8) | (code > 7 || value != value ? 7 : code);
}

/* Block scales are the exponent byte of a float (E8M0): 2^(byte - 127). */
INLINE float rescale(float value, uint32_t scale) { return ldexp_f32(value,
                     (int32_t)(scale >> 23 & 255) - 127); }
INLINE float unscale(float value, uint32_t scale) { return ldexp_f32(value,
                     127 - (int32_t)(scale >> 23 & 255)); }
INLINE uint64_t pair_f32(float low, float high) { return bits_f32(low) | (uint64_t)bits_f32(high) << 32; }
INLINE uint32_t replace_byte(uint32_t old, int byte, uint32_t value)
{
    return (old & ~(255u << 8 * byte)) | value << 8 * byte;
}

#endif
