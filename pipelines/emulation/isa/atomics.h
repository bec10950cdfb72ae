/* Read-modify-write on global memory (seen by other host threads) and on LDS (one host thread per workgroup).
 * ATOMIC(name, type, expression) defines the change of the old value `t` by the data `a` and `b`. */
#ifndef PREDECODE_EMULATION_ATOMICS_H
#define PREDECODE_EMULATION_ATOMICS_H

#include "lds.h"

INLINE uint32_t packed_add_f16(uint32_t t, uint32_t a)
{
    return bits_f16(as_f16(t) + as_f16(a)) | bits_f16(as_f16(t >> 16) + as_f16(a >> 16)) << 16;
}
INLINE uint32_t packed_add_bf16(uint32_t t, uint32_t a)
{
    return bits_bf16(as_bf16(t & 0xffff) + as_bf16(a & 0xffff)) | bits_bf16(as_bf16(t >> 16)
        + as_bf16(a >> 16)) << 16;
}

#define ATOMIC(name, word, expression)                                                                       \
    INLINE word name##_value(word t, word a, word b)                                                         \
    {                                                                                                        \
        (void)t, (void)a, (void)b;                                                                           \
        return (word)(expression);                                                                           \
    }                                                                                                        \
    INLINE word name##_shared(word *place, word a, word b)                                                   \
    {                                                                                                        \
        word t = __atomic_load_n(place, __ATOMIC_RELAXED);                                                   \
        while (!__atomic_compare_exchange_n(place, &t, name##_value(t, a, b), 1, __ATOMIC_SEQ_CST,           \
            __ATOMIC_RELAXED))                                                                               \
            ;                                                                                                \
        return t;                                                                                            \
    }

#define ATOMICS_OF(bits, word, signed_word)                                                                  \
    ATOMIC(swap_##bits, word, a)                                                                             \
    ATOMIC(cmpswap_##bits, word, t == b ? a : t)                                                             \
    ATOMIC(add_##bits, word, t + a)                                                                          \
    ATOMIC(sub_##bits, word, t - a)                                                                          \
    ATOMIC(rsub_##bits, word, a - t)                                                                         \
    ATOMIC(smin_##bits, word, (signed_word)a < (signed_word)t ? a : t)                                       \
    ATOMIC(umin_##bits, word, a < t ? a : t)                                                                 \
    ATOMIC(smax_##bits, word, (signed_word)a >= (signed_word)t ? a : t)                                      \
    ATOMIC(umax_##bits, word, a >= t ? a : t)                                                                \
    ATOMIC(and_##bits, word, t & a)                                                                          \
    ATOMIC(or_##bits, word, t | a)                                                                           \
    ATOMIC(xor_##bits, word, t ^ a)                                                                          \
    ATOMIC(mskor_##bits, word, (t & ~a) | b)                                                                 \
    ATOMIC(inc_##bits, word, t >= a ? 0 : t + 1)                                                             \
    ATOMIC(dec_##bits, word, t == 0 || t > a ? a : t - 1)

ATOMICS_OF(32, uint32_t, int32_t)
ATOMICS_OF(64, uint64_t, int64_t)
ATOMIC(add_f32, uint32_t, bits_f32(as_f32(t) + as_f32(a)))
ATOMIC(min_f32, uint32_t, as_f32(a) < as_f32(t) ? a : t)
ATOMIC(max_f32, uint32_t, as_f32(a) > as_f32(t) ? a : t)
ATOMIC(pk_add_f16, uint32_t, packed_add_f16(t, a))
ATOMIC(pk_add_bf16, uint32_t, packed_add_bf16(t, a))
ATOMIC(add_f64, uint64_t, bits_f64(as_f64(t) + as_f64(a)))
ATOMIC(min_f64, uint64_t, as_f64(a) < as_f64(t) ? a : t)
ATOMIC(max_f64, uint64_t, as_f64(a) > as_f64(t) ? a : t)

INLINE uint64_t lane_word(const uint32_t *s, int l, int bytes)
{
    return !s ? 0 : bytes == 4 ? s[l] : s[l] | (uint64_t)s[WAVE_LANES + l] << 32;
}
INLINE void return_word(uint32_t *d, int l, int bytes, uint64_t value)
{
    if (!d)
        return;
    d[l] = (uint32_t)value;
    if (bytes == 8)
        d[WAVE_LANES + l] = (uint32_t)(value >> 32);
}

/* The loops over lanes, as macros because the operation is a name.  `d` is NULL where nothing is returned.
 * An atomic that leaves the value as it was changes no memory: spinning waves make such ones. */
#define SHARED_ATOMIC(w, d, to, l, data, second, name, word, at)                                            \
    {                                                                                                       \
        if ((uintptr_t)(to) % sizeof(word)) {                                                               \
            fault(w, "atomic at an address that is not aligned to its size", l, at);                        \
            break;                                                                                          \
        }                                                                                                   \
        word a = (word)lane_word(data, l, sizeof(word)), b = (word)lane_word(second, l, sizeof(word));      \
        word t = name##_shared((word *)(void *)(to), a, b);                                                 \
        return_word(d, l, sizeof(word), t);                                                                 \
        w->counters.bytes_loaded += sizeof(word), w->counters.bytes_stored += sizeof(word);                 \
        w->memory_changes += name##_value(t, a, b) != t;                                                    \
    }
#define GLOBAL_ATOMIC(w, d, addresses, data, second, name, word, flat, at)                                  \
    for (uint64_t left = exec_of(w); left; left &= left - 1) {                                              \
        int l = __builtin_ctzll(left);                                                                      \
        uint8_t *to = place(w, (addresses)[l], sizeof(word), USE_ATOMIC, data, l, flat, at);                \
        if (!to)                                                                                            \
            break;                                                                                          \
        SHARED_ATOMIC(w, d, to, l, data, second, name, word, at)                                            \
    }
#define BUFFER_ATOMIC(w, d, buffer, offsets, scalar, data, second, name, word, at)                          \
    for (uint64_t left = exec_of(w); left; left &= left - 1) {                                              \
        int l = __builtin_ctzll(left);                                                                      \
        if (!buffer_inside(buffer, (offsets)[l], scalar)) {                                                 \
            return_word(d, l, sizeof(word), 0);                                                             \
            continue;                                                                                       \
        }                                                                                                   \
        uint8_t *to = place(w, buffer.base + (offsets)[l] + scalar, sizeof(word), USE_ATOMIC, data, l, 0, at);\
        if (!to)                                                                                            \
            break;                                                                                          \
        SHARED_ATOMIC(w, d, to, l, data, second, name, word, at)                                            \
    }
#define LDS_ATOMIC(w, d, lanes, offset, data, second, name, word, at)                                        \
    for (uint64_t left = exec_of(w); left; left &= left - 1) {                                               \
        int l = __builtin_ctzll(left);                                                                       \
        uint64_t address = (uint64_t)(lanes)[l] + (offset);                                                  \
        uint8_t *to = lds_at(w, address, sizeof(word), l, at);                                               \
        if (!to || !lds_write_allowed(w, address, sizeof(word), l, data, LDS_ATOMICALLY, at))                \
            break;                                                                                           \
        word t, value;                                                                                       \
        memcpy(&t, to, sizeof(word));                                                                        \
        value = name##_value(t, (word)lane_word(data, l, sizeof(word)), (word)lane_word(second, l,           \
            sizeof(word)));                                                                                  \
        memcpy(to, &value, sizeof(word));                                                                    \
        return_word(d, l, sizeof(word), t);                                                                  \
    }

#endif
