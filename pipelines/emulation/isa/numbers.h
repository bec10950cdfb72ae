/* Number formats and the arithmetic of single lanes, written so that loops over 64 lanes vectorise.
 * Rules (NaN, signed zero, rounding) follow the CDNA3/CDNA4 instruction set documents. */
#ifndef PREDECODE_EMULATION_NUMBERS_H
#define PREDECODE_EMULATION_NUMBERS_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline, unused))

INLINE float as_f32(uint32_t bits) { float value; memcpy(&value, &bits, 4); return value; }
INLINE uint32_t bits_f32(float value) { uint32_t bits; memcpy(&bits, &value, 4); return bits; }
INLINE double as_f64(uint64_t bits) { double value; memcpy(&value, &bits, 8); return value; }
INLINE uint64_t bits_f64(double value) { uint64_t bits; memcpy(&bits, &value, 8); return bits; }

INLINE float as_f16(uint32_t bits)
{
    uint16_t half = (uint16_t)bits;
    _Float16 value;
    memcpy(&value, &half, 2);
    return (float)value;
}
INLINE uint32_t bits_f16(float value)
{
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, 2);
    return bits;
}
INLINE float as_bf16(uint32_t bits) { return as_f32(bits << 16); }
INLINE uint32_t bits_bf16(float value)
{
    uint32_t bits = bits_f32(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value != value ? (bits >> 16) | 0x40 : rounded;
}

/* A double as the float whose own rounding to a shorter format gives the double's rounding (round to odd). */
INLINE float odd_f32(double value)
{
    float near = (float)value;
    uint32_t bits = bits_f32(near);
    int inexact = (double)near != value && value == value && __builtin_fabsf(near) < __builtin_inff();
    int below = __builtin_fabs((double)near) < __builtin_fabs(value);
    uint32_t odd = bits + (below ? 1u : (uint32_t)-1);
    return as_f32(inexact && !(bits & 1) ? odd : bits);
}
INLINE float fma_f16(float a, float b, float c) { return odd_f32((double)a * (double)b + (double)c); }

INLINE float neg_f32(float a) { return as_f32(bits_f32(a) ^ 0x80000000u); }
INLINE float abs_f32(float a) { return as_f32(bits_f32(a) & 0x7fffffffu); }
INLINE double neg_f64(double a) { return as_f64(bits_f64(a) ^ (UINT64_C(1) << 63)); }
INLINE double abs_f64(double a) { return as_f64(bits_f64(a) & ~(UINT64_C(1) << 63)); }

INLINE int is_signal_f32(float a) { return a != a && !(bits_f32(a) & 0x400000); }
INLINE int is_signal_f64(double a) { return a != a && !(bits_f64(a) & (UINT64_C(1) << 51)); }
INLINE float quiet_f32(float a) { return as_f32(bits_f32(a) | 0x400000); }
INLINE double quiet_f64(double a) { return as_f64(bits_f64(a) | (UINT64_C(1) << 51)); }

/* IEEE mode: a signalling NaN wins, a quiet one loses; -0 < +0. */
INLINE float min_f32(float a, float b)
{
    float less = a == b ? as_f32(bits_f32(a) | bits_f32(b)) : a < b ? a : b;
    float number = a != a ? b : b != b ? a : less;
    return is_signal_f32(a) ? quiet_f32(a) : is_signal_f32(b) ? quiet_f32(b) : number;
}
INLINE float max_f32(float a, float b)
{
    float more = a == b ? as_f32(bits_f32(a) & bits_f32(b)) : a > b ? a : b;
    float number = a != a ? b : b != b ? a : more;
    return is_signal_f32(a) ? quiet_f32(a) : is_signal_f32(b) ? quiet_f32(b) : number;
}
INLINE double min_f64(double a, double b)
{
    double less = a == b ? as_f64(bits_f64(a) | bits_f64(b)) : a < b ? a : b;
    double number = a != a ? b : b != b ? a : less;
    return is_signal_f64(a) ? quiet_f64(a) : is_signal_f64(b) ? quiet_f64(b) : number;
}
INLINE double max_f64(double a, double b)
{
    double more = a == b ? as_f64(bits_f64(a) & bits_f64(b)) : a > b ? a : b;
    double number = a != a ? b : b != b ? a : more;
    return is_signal_f64(a) ? quiet_f64(a) : is_signal_f64(b) ? quiet_f64(b) : number;
}
/* IEEE 754-2019 minimum and maximum: any NaN wins. */
INLINE float minimum_f32(float a, float b) { return a != a ? quiet_f32(a) : b != b ? quiet_f32(b)
    : min_f32(a, b); }
INLINE float maximum_f32(float a, float b) { return a != a ? quiet_f32(a) : b != b ? quiet_f32(b)
    : max_f32(a, b); }
INLINE float med3_f32(float a, float b, float c)
{
    float most = max_f32(max_f32(a, b), c);
    float middle = most == a ? max_f32(b, c) : most == b ? max_f32(a, c) : max_f32(a, b);
    return a != a || b != b || c != c ? min_f32(min_f32(a, b), c) : middle;
}
/* DX10_CLAMP: NaN -> 0 */
INLINE float clamp01_f32(float a) { return a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f; }
INLINE double clamp01_f64(double a) { return a > 0.0 ? (a < 1.0 ? a : 1.0) : 0.0; }

INLINE int32_t min_i32(int32_t a, int32_t b) { return a < b ? a : b; }
INLINE int32_t max_i32(int32_t a, int32_t b) { return a < b ? b : a; }
INLINE uint32_t min_u32(uint32_t a, uint32_t b) { return a < b ? a : b; }
INLINE uint32_t max_u32(uint32_t a, uint32_t b) { return a < b ? b : a; }
INLINE int32_t med3_i32(int32_t a, int32_t b, int32_t c) { return max_i32(min_i32(a, b), min_i32(max_i32(a,
                        b), c)); }
INLINE uint32_t med3_u32(uint32_t a, uint32_t b, uint32_t c)
{
    return max_u32(min_u32(a, b), min_u32(max_u32(a, b), c));
}
INLINE int64_t clamp_i64(int64_t a, int64_t low, int64_t high) { return a < low ? low : a > high ? high : a; }

/* float to integer: truncation, saturation, NaN -> 0 */
INLINE int32_t to_i32(double a)
{
    double bound = a < -2147483648.0 ? -2147483648.0 : a > 2147483647.0 ? 2147483647.0 : a;
    return (int32_t)(a == a ? bound : 0.0);
}
INLINE uint32_t to_u32(double a)
{
    double bound = a < 0.0 ? 0.0 : a > 4294967295.0 ? 4294967295.0 : a;
    return (uint32_t)(int64_t)(a == a ? bound : 0.0);
}
INLINE int32_t to_range(float a, float low, float high)
{
    float bound = a < low ? low : a > high ? high : a;
    return (int32_t)(a == a ? bound : 0.0f);
}
INLINE uint32_t to_f16_toward_zero(float a)
{
    uint32_t near = bits_f16(a);
    float back = as_f16(near);
    return near - (a == a && abs_f32(back) > abs_f32(a)); /* one code towards zero; infinity becomes 65504 */
}

INLINE double scale_f64(double a, int32_t exponent) /* |exponent| <= 1022 */
{
    return a * as_f64((uint64_t)(int64_t)(exponent + 1023) << 52);
}
INLINE double ldexp_f64(double a, int32_t exponent)
{
    int32_t steps = exponent < -2200 ? -2200 : exponent > 2200 ? 2200 : exponent;
    int32_t third = steps / 3;
    /* A result below the normals is rounded once only if the last factor does it: shrink in ever smaller
     * steps. */
    if (steps >= -1022 && steps <= 1022)
        return scale_f64(a, steps);
    return scale_f64(scale_f64(scale_f64(a, third), third), steps - 2 * third);
}
INLINE float ldexp_f32(float a, int32_t exponent)
{
    int32_t steps = exponent < -600 ? -600 : exponent > 600 ? 600 : exponent;
    return (float)scale_f64((double)a, steps);
}
INLINE float fract_f32(float a)
{
    float part = a - __builtin_floorf(a);
    return a != a ? a : part < 0x1.fffffep-1f ? part : 0x1.fffffep-1f;
}
INLINE double fract_f64(double a)
{
    double part = a - __builtin_floor(a);
    return a != a ? a : part < 0x1.fffffffffffffp-1 ? part : 0x1.fffffffffffffp-1;
}
INLINE int finite_f32(float a) { return abs_f32(a) < __builtin_inff(); }
INLINE int finite_f64(double a) { return abs_f64(a) < __builtin_inf(); }
INLINE int32_t frexp_exp_f64(double a)
{
    double normal = abs_f64(a) < 0x1p-1022 ? a * 0x1p54 : a;
    int32_t exponent = (int32_t)((bits_f64(normal) >> 52) & 0x7ff) - 1022 - (abs_f64(a) < 0x1p-1022 ? 54 : 0);
    return finite_f64(a) && a != 0.0 ? exponent : 0;
}
INLINE double frexp_mant_f64(double a)
{
    double normal = abs_f64(a) < 0x1p-1022 ? a * 0x1p54 : a;
    uint64_t bits = (bits_f64(normal) & UINT64_C(0x800fffffffffffff)) | UINT64_C(0x3fe0000000000000);
    return finite_f64(a) && a != 0.0 ? as_f64(bits) : a;
}

INLINE int class_f64(double a, uint32_t wanted)
{
    int negative = (int)(bits_f64(a) >> 63);
    int denormal = abs_f64(a) < 0x1p-1022;
    int kind = a != a ? (is_signal_f64(a) ? 0 : 1)
        : !finite_f64(a) ? (negative ? 2 : 9)
        : a == 0.0 ? (negative ? 5 : 6)
        : denormal ? (negative ? 4 : 7)
        : negative ? 3 : 8;
    return (wanted >> kind) & 1;
}
INLINE int class_small(uint32_t magnitude, int negative, uint32_t infinity, uint32_t least, uint32_t quiet,
                       uint32_t wanted)
{
    int kind = magnitude > infinity ? (magnitude & quiet ? 1 : 0)
        : magnitude == infinity ? (negative ? 2 : 9)
        : magnitude == 0 ? (negative ? 5 : 6)
        : magnitude < least ? (negative ? 4 : 7)
        : negative ? 3 : 8;
    return (wanted >> kind) & 1;
}
INLINE int class_f32(uint32_t bits, uint32_t wanted)
{
    return class_small(bits & 0x7fffffff, bits >> 31, 0x7f800000, 0x800000, 0x400000, wanted);
}
INLINE int class_f16(uint32_t bits, uint32_t wanted)
{
    return class_small(bits & 0x7fff, (bits >> 15) & 1, 0x7c00, 0x400, 0x200, wanted);
}

/* Bit operations */
INLINE uint32_t reverse_32(uint32_t a) { return __builtin_bitreverse32(a); }
INLINE int32_t first_high(uint32_t a) { return a ? __builtin_clz(a) : -1; }
INLINE int32_t first_low(uint32_t a) { return a ? __builtin_ctz(a) : -1; }
INLINE int32_t first_high_64(uint64_t a) { return a ? __builtin_clzll(a) : -1; }
INLINE int32_t first_low_64(uint64_t a) { return a ? __builtin_ctzll(a) : -1; }
INLINE int32_t sign_run(int32_t a) { return first_high((uint32_t)(a ^ (a >> 31))); }
INLINE int32_t sign_run_64(int64_t a) { return first_high_64((uint64_t)(a ^ (a >> 63))); }
INLINE uint32_t extract_u32(uint32_t a, uint32_t from, uint32_t width)
{
    return width >= 32 ? a >> from : (a >> from) & ((1u << width) - 1);
}
INLINE int32_t extract_i32(int32_t a, uint32_t from, uint32_t width)
{
    uint32_t top = 32 - width;
    uint32_t value = (uint32_t)(a >> from);
    return width == 0 ? 0 : width >= 32 ? (int32_t)value : (int32_t)(value << top) >> top;
}
INLINE uint32_t permute_byte(uint64_t data, uint32_t selector)
{
    uint32_t byte = (uint32_t)(data >> (selector * 8 & 63)) & 0xff;
    uint32_t sign = (data >> ((selector & 3) * 16 + 15)) & 1 ? 0xff : 0;
    return selector < 8 ? byte : selector < 12 ? sign : selector == 12 ? 0 : 0xff;
}
INLINE uint32_t permute_bytes(uint64_t data, uint32_t s)
{
    return permute_byte(data, s & 0xff) | permute_byte(data, s >> 8 & 0xff) << 8
        | permute_byte(data, s >> 16 & 0xff) << 16 | permute_byte(data, s >> 24) << 24;
}
INLINE uint32_t bitop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++)
        value |= table >> i & 1 ? (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c) : 0;
    return value;
}
INLINE uint32_t difference(uint32_t a, uint32_t b) { return a > b ? a - b : b - a; }
INLINE uint32_t sad_u8(uint32_t a, uint32_t b)
{
    return difference(a & 255, b & 255) + difference(a >> 8 & 255, b >> 8 & 255)
        + difference(a >> 16 & 255, b >> 16 & 255) + difference(a >> 24, b >> 24);
}
INLINE int32_t i8_at(uint32_t a, int i) { return (int8_t)(a >> 8 * i); }
INLINE int32_t u8_at(uint32_t a, int i) { return (uint8_t)(a >> 8 * i); }
INLINE int32_t i4_at(uint32_t a, int i) { return (int32_t)(a << (28 - 4 * i)) >> 28; }
INLINE int32_t u4_at(uint32_t a, int i) { return a >> 4 * i & 15; }
INLINE int32_t low16(uint32_t a) { return (int16_t)a; }
INLINE int32_t high16(uint32_t a) { return (int16_t)(a >> 16); }

/* Dot products */
INLINE float dot2_f16(uint32_t a, uint32_t b, float sum)
{
    sum += as_f16(a) * as_f16(b);
    return sum + as_f16(a >> 16) * as_f16(b >> 16);
}
INLINE float dot2_bf16(uint32_t a, uint32_t b, float sum)
{
    sum += as_bf16(a & 0xffff) * as_bf16(b & 0xffff);
    return sum + as_bf16(a >> 16) * as_bf16(b >> 16);
}
INLINE int32_t dot4_i8(uint32_t a, uint32_t b)
{
    return i8_at(a, 0) * i8_at(b, 0) + i8_at(a, 1) * i8_at(b, 1) + i8_at(a, 2) * i8_at(b, 2) + i8_at(a,
        3) * i8_at(b, 3);
}
INLINE uint32_t dot4_u8(uint32_t a, uint32_t b)
{
    return (uint32_t)(u8_at(a, 0) * u8_at(b, 0) + u8_at(a, 1) * u8_at(b, 1) + u8_at(a, 2) * u8_at(b, 2)
        + u8_at(a, 3) * u8_at(b, 3));
}
INLINE int32_t dot8_i4(uint32_t a, uint32_t b)
{
    int32_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += i4_at(a, i) * i4_at(b, i);
    return sum;
}
INLINE uint32_t dot8_u4(uint32_t a, uint32_t b)
{
    int32_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += u4_at(a, i) * u4_at(b, i);
    return (uint32_t)sum;
}
INLINE uint32_t lerp_u8(uint32_t a, uint32_t b, uint32_t round)
{
    uint32_t value = 0;
    for (int i = 0; i < 32; i += 8)
        value |= ((a >> i & 255) + (b >> i & 255) + (round >> i & 1)) >> 1 << i;
    return value;
}

#endif
