/* Everything a translated kernel includes.  STRICT is 0 or 1. */
#ifndef PREDECODE_EMULATION_RUNTIME_H
#define PREDECODE_EMULATION_RUNTIME_H

#ifndef STRICT
#define STRICT 0
#endif
#define EXPORT __attribute__((visibility("default")))

#include "atomics.h"
#include "checks.h"
#include "crosslane.h"
#include "division.h"
#include "lanes.h"
#include "lds.h"
#include "matrix.h"
#include "memory.h"
#include "small_floats.h"
#include "transcendentals.h"

enum { TURNS_BETWEEN_YIELDS = 1 << 14 };

INLINE uint32_t whole_quads_32(uint32_t a)
{
    uint32_t any = a | a >> 1;
    any = (any | any >> 2) & 0x11111111u;
    return any * 15;
}
INLINE uint64_t whole_quads(uint64_t a) { return whole_quads_32((uint32_t)a)
    | (uint64_t)whole_quads_32((uint32_t)(a >> 32)) << 32; }
INLINE uint64_t quad_mask(uint64_t a)
{
    uint64_t mask = 0;
    for (int i = 0; i < 16; i++)
        mask |= (uint64_t)((a >> 4 * i & 15) != 0) << i;
    return mask;
}
INLINE uint64_t replicate_bits(uint32_t a)
{
    uint64_t value = 0;
    for (int i = 0; i < 32; i++)
        value |= (uint64_t)(a >> i & 1) * 3 << 2 * i;
    return value;
}
INLINE uint64_t extract_u64(uint64_t a, uint32_t from, uint32_t width)
{
    return width >= 64 ? a >> from : (a >> from) & ((UINT64_C(1) << width) - 1);
}
INLINE int64_t extract_i64(int64_t a, uint32_t from, uint32_t width)
{
    uint64_t value = (uint64_t)(a >> from);
    return width == 0 ? 0 : width >= 64 ? (int64_t)value : (int64_t)(value << (64 - width)) >> (64 - width);
}
/* s_memtime: instructions run so far, so that a run repeats exactly. */
INLINE uint64_t wave_clock(const struct Wave *w)
{
    const struct WaveCounters *c = &w->counters;
    return c->salu + c->smem + c->valu + c->mfma + c->lds + c->vmem + c->branch + c->other;
}

struct InstructionText {
    uint32_t code_offset;
    const char *text;
};
INLINE const char *text_at(const struct InstructionText *texts, int count, uint64_t code_offset)
{
    for (int i = 0; i < count; i++)
        if (texts[i].code_offset == code_offset)
            return texts[i].text;
    return NULL;
}

/* Run a wave with its own floating-point mode and EXEC, and put the host's mode back. */
INLINE int run_with_mode(struct Wave *w, int (*run)(struct Wave *))
{
    typeof(float_control()) host = float_control();
    apply_mode(w, 0);
    spread_exec(w);
    int status = w->faulted ? WAVE_FAULTED : run(w);
    set_float_control(host);
    return status;
}

#endif
