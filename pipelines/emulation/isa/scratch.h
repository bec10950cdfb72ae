/* Scratch: the private segment of each work-item, and strict mode's memory of what was written to it. */
#ifndef PREDECODE_EMULATION_SCRATCH_H
#define PREDECODE_EMULATION_SCRATCH_H

#include "checks.h"

enum { SCRATCH_UNWRITTEN, SCRATCH_DEFINED, SCRATCH_UNDEFINED }; /* the last: an undefined value was written */

HELPER uint8_t *scratch_outside(struct Wave *w, int lane, uint64_t at)
{
    fault(w, "scratch access beyond the private segment of the work-item", lane, at);
    return NULL;
}
/* Scratch of one lane, or NULL (and a fault) outside its frame. */
INLINE uint8_t *scratch_at(struct Wave *w, uint64_t offset, int bytes, int lane, uint64_t at)
{
    if (offset + (uint64_t)bytes > w->scratch_bytes_per_lane)
        return scratch_outside(w, lane, at);
    return w->scratch + (uint64_t)lane * w->scratch_bytes_per_lane + offset;
}

#if STRICT

/* Which of the `bytes` at `place` were never written, as an offset from it; -1: all were. */
INLINE int scratch_unwritten(const struct Wave *w, const uint8_t *place, int bytes)
{
    const uint8_t *state = w->scratch_state + (place - w->scratch);
    for (int i = 0; i < bytes; i++)
        if (state[i] == SCRATCH_UNWRITTEN)
            return i;
    return -1;
}
/* A load has to find written bytes.  What was written undefined, or with `spill` not at all, stays undefined. */
HELPER int scratch_read_allowed(struct Wave *w, const uint8_t *place, int bytes, int lane, const uint32_t *d,
                                int spill, uint64_t at)
{
    if (!w->scratch_state)
        return 1;
    int missing = spill ? -1 : scratch_unwritten(w, place, bytes);
    if (missing >= 0) {
        uint64_t byte = (uint64_t)(place - w->scratch) - (uint64_t)lane * w->scratch_bytes_per_lane;
        fault_with_number(w, "reads scratch byte 0x%x of the work-item, which was never written",
                          byte + (uint64_t)missing, lane, at);
        return 0;
    }
    const uint8_t *state = w->scratch_state + (place - w->scratch);
    for (int i = 0; d && i < bytes; i++)
        if (state[i] != SCRATCH_DEFINED)
            w->checks.vgpr_defined[(d - w->vgpr[0]) / WAVE_LANES + i / 4] &= ~(UINT64_C(1) << lane);
    return 1;
}
HELPER void scratch_written(struct Wave *w, const uint8_t *place, int bytes, int lane, const uint32_t *s)
{
    if (!w->scratch_state)
        return;
    uint8_t *state = w->scratch_state + (place - w->scratch);
    for (int i = 0; i < bytes; i++)
        state[i] = !s || w->checks.vgpr_defined[(s - w->vgpr[0]) / WAVE_LANES + i / 4] >> lane & 1
            ? SCRATCH_DEFINED : SCRATCH_UNDEFINED;
}
/* A register that was spilled while some lanes were off is reloaded for all of them: lanes without a value
 * get an undefined one, as long as one lane has a value. */
INLINE int scratch_is_spill(const struct Wave *w, uint64_t offset, int bytes)
{
    if (!w->scratch_state || offset + (uint64_t)bytes > w->scratch_bytes_per_lane)
        return 0;
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        const uint8_t *place = w->scratch + (uint64_t)__builtin_ctzll(left) * w->scratch_bytes_per_lane + offset;
        if (scratch_unwritten(w, place, bytes) < 0)
            return 1;
    }
    return 0;
}

#else

#define scratch_read_allowed(w, place, bytes, lane, d, spill, at) 1
#define scratch_written(w, place, bytes, lane, s) (void)0
#define scratch_is_spill(w, offset, bytes) 0

#endif
#endif
