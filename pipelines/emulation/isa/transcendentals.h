/* Powers, logarithms, roots, reciprocals and sines: more exact than the hardware's approximations, with
 * its rules for special values. */
#ifndef PREDECODE_EMULATION_TRANSCENDENTALS_H
#define PREDECODE_EMULATION_TRANSCENDENTALS_H

#include "numbers.h"

/* The transcendental unit flushes denormal inputs and results. */
INLINE float flush_f32(float a) { return bits_f32(a) & 0x7f800000u ? a : as_f32(bits_f32(a) & 0x80000000u); }

/* Coefficients from the highest power down; the loop is unrolled. */
INLINE double polynomial(double x, const double *coefficients, int count)
{
    double sum = coefficients[0];
    for (int i = 1; i < count; i++)
        sum = sum * x + coefficients[i];
    return sum;
}
INLINE double exp2_f64(double a) /* 2^a for |a| < 1000, relative error below 1e-11 */
{
    const double series[] = {1.0 / 3628800.0, 1.0 / 362880.0, 1.0 / 40320.0, 1.0 / 5040.0, 1.0 / 720.0,
                             1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0};
    double whole = __builtin_rint(a), part = (a - whole) * 0.69314718055994530942;
    return scale_f64(polynomial(part, series, 11), (int32_t)whole);
}
INLINE double log2_f64(double a) /* positive, normal; relative error of the fraction below 1e-11 */
{
    const double series[] = {1.0 / 15.0, 1.0 / 13.0, 1.0 / 11.0, 1.0 / 9.0, 1.0 / 7.0, 1.0 / 5.0, 1.0 / 3.0, 1.0};
    /* so that the mantissa lies in [sqrt(1/2), sqrt(2)) */
    uint64_t bits = bits_f64(a) - UINT64_C(0x3fe6a09e667f3bcd);
    int32_t exponent = (int32_t)((int64_t)bits >> 52);
    double mantissa = as_f64((bits & UINT64_C(0xfffffffffffff)) + UINT64_C(0x3fe6a09e667f3bcd));
    double ratio = (mantissa - 1.0) / (mantissa + 1.0);
    return (double)exponent + 2.8853900817779268147 * ratio * polynomial(ratio * ratio, series, 8);
}
INLINE float exp2_f32(float a)
{
    double bound = a < -200.0f ? -200.0 : a > 200.0f ? 200.0 : (double)a;
    return a != a ? quiet_f32(a) : flush_f32((float)exp2_f64(a == a ? bound : 0.0));
}
INLINE float log2_any(float a)
{
    double finite = a > 0.0f && a < __builtin_inff() ? (double)a : 1.0;
    float value = (float)log2_f64(finite);
    float special = a == 0.0f ? -__builtin_inff() : a > 0.0f ? a : __builtin_nanf("");
    return a > 0.0f && a < __builtin_inff() ? value : a != a ? quiet_f32(a) : special;
}
INLINE float log2_f32(float a) { return log2_any(flush_f32(a)); }
INLINE float rcp_f32(float a) { return flush_f32(1.0f / flush_f32(a)); }
INLINE float sqrt_f32(float a) { return __builtin_sqrtf(flush_f32(a)); }
INLINE float rsq_f32(float a) { return (float)(1.0 / __builtin_sqrt((double)flush_f32(a))); }
/* revolutions to radians */
INLINE double turn(double a) { return (a - __builtin_rint(a)) * 6.283185307179586477; }
INLINE float sin_f32(float a) { return (float)__builtin_sin(turn(a)); }
INLINE float cos_f32(float a) { return (float)__builtin_cos(turn(a)); }

#endif
