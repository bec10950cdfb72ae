/* v_div_scale, v_div_fmas and v_div_fixup: the steps around a reciprocal refinement.
 *
 * AMD's text for them does not fit together (v_div_fmas undoes 2^32 of a scaling by 2^64, and one case
 * scales a huge denominator up).  Here the scalings undo each other, so that the sequence that compilers
 * emit divides correctly. */
#ifndef PREDECODE_EMULATION_DIVISION_H
#define PREDECODE_EMULATION_DIVISION_H

#include "numbers.h"

INLINE int exponent_f32(float a) { return (int)(bits_f32(a) >> 23 & 255); }
INLINE int exponent_f64(double a) { return (int)(bits_f64(a) >> 52 & 2047); }
INLINE int denormal_f32(float a) { return a != 0.0f && exponent_f32(a) == 0; }
INLINE int denormal_f64(double a) { return a != 0.0 && exponent_f64(a) == 0; }

INLINE float div_fixup_f32(float quotient, float denominator, float numerator)
{
    uint32_t sign = (bits_f32(denominator) ^ bits_f32(numerator)) & 0x80000000u;
    float value = as_f32((bits_f32(quotient) & 0x7fffffffu) | sign);
    float infinity = as_f32(0x7f800000u | sign), zero = as_f32(sign);
    int denominator_infinite = abs_f32(denominator) == __builtin_inff();
    int numerator_infinite = abs_f32(numerator) == __builtin_inff();
    int span = exponent_f32(numerator) - exponent_f32(denominator);
    /* Underflow and overflow are the smallest denormal and infinity in round-to-nearest. */
    value = span < -150 ? zero : span >= 130 || exponent_f32(denominator) == 255 ? infinity : value;
    value = denominator_infinite || numerator == 0.0f ? zero : value;
    value = denominator == 0.0f || numerator_infinite ? infinity : value;
    value = (denominator == 0.0f && numerator == 0.0f) || (denominator_infinite && numerator_infinite)
        ? as_f32(0xffc00000u) : value;
    value = denominator != denominator ? quiet_f32(denominator) : value;
    return numerator != numerator ? quiet_f32(numerator) : value;
}
INLINE double div_fixup_f64(double quotient, double denominator, double numerator)
{
    uint64_t sign = (bits_f64(denominator) ^ bits_f64(numerator)) & UINT64_C(1) << 63;
    double value = as_f64((bits_f64(quotient) & ~(UINT64_C(1) << 63)) | sign);
    double infinity = as_f64(UINT64_C(0x7ff0000000000000) | sign), zero = as_f64(sign);
    int denominator_infinite = abs_f64(denominator) == __builtin_inf();
    int numerator_infinite = abs_f64(numerator) == __builtin_inf();
    int span = exponent_f64(numerator) - exponent_f64(denominator);
    value = span < -1075 ? zero : span >= 1026 || exponent_f64(denominator) == 2047 ? infinity : value;
    value = denominator_infinite || numerator == 0.0 ? zero : value;
    value = denominator == 0.0 || numerator_infinite ? infinity : value;
    value = (denominator == 0.0 && numerator == 0.0) || (denominator_infinite && numerator_infinite)
        ? as_f64(UINT64_C(0xfff8000000000000)) : value;
    value = denominator != denominator ? quiet_f64(denominator) : value;
    return numerator != numerator ? quiet_f64(numerator) : value;
}
INLINE float div_fixup_f16(float quotient, float denominator, float numerator)
{
    return div_fixup_f32(quotient, denominator, numerator);
}

struct ScaledF32 { float value; int scaled; };
struct ScaledF64 { double value; int scaled; };

/* What v_div_scale does to its chosen operand: times 2^(steps * direction); `scaled` tells v_div_fmas to undo it. */
struct Scaling { int direction, scaled; };
struct Division {
    int is_denominator, is_numerator; /* which of them the chosen operand is */
    int far;                          /* the quotient is so large that it may overflow on the way */
    int denominator_small;            /* denormal */
    int reciprocal_small;             /* 1 / denominator would be denormal */
    int quotient_small;               /* the quotient is denormal */
    int numerator_small;              /* its low bits would be lost below the normals */
};
INLINE struct Scaling scaling_of(struct Division d)
{
    struct Scaling result = {0, 0};
    if (d.far)
        result.scaled = 1, result.direction = d.is_denominator;
    else if (d.denominator_small)
        result.direction = 1;
    else if (d.reciprocal_small && d.quotient_small)
        result.scaled = 1, result.direction = -d.is_denominator;
    else if (d.reciprocal_small)
        result.direction = -1;
    else if (d.quotient_small)
        result.scaled = 1, result.direction = d.is_numerator;
    else if (d.numerator_small)
        result.direction = 1;
    return result;
}
INLINE struct ScaledF32 div_scale_f32(float chosen, float denominator, float numerator)
{
    struct Scaling scaling = scaling_of((struct Division){
        chosen == denominator, chosen == numerator, exponent_f32(numerator) - exponent_f32(denominator) >= 96,
        denormal_f32(denominator), abs_f32(denominator) > 0x1p126f, denormal_f32(numerator / denominator),
        exponent_f32(numerator) <= 23});
    int impossible = numerator == 0.0f || denominator == 0.0f;
    float value = ldexp_f32(chosen, 64 * scaling.direction);
    return (struct ScaledF32){impossible ? __builtin_nanf("") : scaling.direction ? value : chosen,
                              !impossible && scaling.scaled};
}
INLINE struct ScaledF64 div_scale_f64(double chosen, double denominator, double numerator)
{
    struct Scaling scaling = scaling_of((struct Division){
        chosen == denominator, chosen == numerator, exponent_f64(numerator) - exponent_f64(denominator) >= 768,
        denormal_f64(denominator), abs_f64(denominator) > 0x1p1022, denormal_f64(numerator / denominator),
        exponent_f64(numerator) <= 53});
    int impossible = numerator == 0.0 || denominator == 0.0;
    double value = ldexp_f64(chosen, 128 * scaling.direction);
    return (struct ScaledF64){impossible ? __builtin_nan("") : scaling.direction ? value : chosen,
                              !impossible && scaling.scaled};
}

/* `scaled`: undo v_div_scale, upwards for a large quotient and downwards for a small one. */
INLINE float div_fmas_f32(float a, float b, float quotient, int scaled)
{
    double factor = !scaled ? 1.0 : exponent_f32(quotient) > 127 ? 0x1p64 : 0x1p-64;
    return scaled ? (float)(((double)a * (double)b + (double)quotient) * factor) : __builtin_fmaf(a, b,
        quotient);
}
INLINE double div_fmas_f64(double a, double b, double quotient, int scaled)
{
    double factor = !scaled ? 1.0 : exponent_f64(quotient) > 1023 ? 0x1p128 : 0x1p-128;
    return __builtin_fma(a, b, quotient) * factor;
}

#endif
