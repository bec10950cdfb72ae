/* Access to a wave's registers and EXEC, and the loop over lanes that generated helpers are made of. */
#ifndef PREDECODE_EMULATION_LANES_H
#define PREDECODE_EMULATION_LANES_H

#include "numbers.h"
#include "wave.h"

#define HELPER static __attribute__((noinline, unused))
/* A lane touches only its own column of registers, so iterations never depend on each other. */
#define LANES _Pragma("clang loop vectorize(assume_safety)") for (int l = 0; l < WAVE_LANES; l++)
#define KEEP(register, lane, value) (register)[lane] = m[lane] ? (uint32_t)(value) : (register)[lane]

INLINE uint64_t get_64(const struct Wave *w, int index)
{
    return w->sgpr[index] | (uint64_t)w->sgpr[index + 1] << 32;
}
INLINE uint64_t exec_of(const struct Wave *w) { return get_64(w, SGPR_EXEC); }

HELPER void spread_exec(struct Wave *w)
{
    uint64_t exec = exec_of(w);
    for (int l = 0; l < WAVE_LANES; l++)
        w->lane_mask[l] = exec >> l & 1 ? ~0u : 0;
}
INLINE void set_32(struct Wave *w, int index, uint32_t value) { w->sgpr[index] = value; }
INLINE void set_64(struct Wave *w, int index, uint64_t value)
{
    w->sgpr[index] = (uint32_t)value;
    w->sgpr[index + 1] = (uint32_t)(value >> 32);
}
/* VCC, an SGPR pair or EXEC as the destination of a mask */
INLINE void set_mask(struct Wave *w, int index, uint64_t value)
{
    set_64(w, index, value);
    if (index == SGPR_EXEC)
        spread_exec(w);
}

/* A fault ends the wave: `report` has been told, the caller returns WAVE_FAULTED. */
HELPER void fault(struct Wave *w, const char *message, int lane, uint64_t address)
{
    if (!w->faulted)
        w->workgroup->report(w->workgroup, w, message, lane, address);
    w->faulted = 1;
}

#endif
