/* Strict mode, LDS: never-written bytes and hazards between waves.
 *
 * LDS is followed byte by byte: who wrote it with which operation, who read it, and which barriers lie
 * between. */
#ifndef PREDECODE_EMULATION_LDS_CHECKS_H
#define PREDECODE_EMULATION_LDS_CHECKS_H

#include "checks.h"

enum { LDS_WRITTEN = 1, LDS_LOADED = 2, LDS_ATOMICALLY = 3 };

#if STRICT

/* Has what `writer` wrote as operation `sequence` reached LDS, as far as `w` can know? */
INLINE int lds_visible(const struct Wave *w, const struct LdsByte *byte)
{
    const struct Wave *writer = w->workgroup->waves[byte->writer];
    int loaded = byte->written == LDS_LOADED;
    if (writer == w)
        return !loaded || byte->write_sequence <= w->checks.vector_done;
    if (w->checks.barriers == 0)
        return 0;
    uint32_t last = (w->checks.barriers - 1) & 3;
    return byte->write_sequence <= (loaded ? writer->checks.vector_done_at_barrier
        : writer->checks.lds_done_at_barrier)[last];
}
INLINE int lds_fault(struct Wave *w, const char *what, uint64_t address, int lane, uint64_t at)
{
    fault_with_number(w, what, address, lane, at);
    return 0;
}
INLINE int lds_read_allowed(struct Wave *w, uint64_t address, int bytes, int lane, uint32_t *d, uint64_t at)
{
    struct LdsByte *byte = w->workgroup->lds_bytes;
    if (!byte)
        return 1;
    byte += address;
    int undefined = 0;
    for (int i = 0; i < bytes; i++, byte++) {
        uint64_t place = address + (uint64_t)i;
        if (!byte->written)
            return lds_fault(w, "reads LDS byte 0x%x, which was never written", place, lane, at);
        if (!lds_visible(w, byte))
            return lds_fault(
                w,
                w->workgroup->waves[byte->writer] == w
                    ? "reads LDS byte 0x%x before the s_waitcnt vmcnt that completes the load into it"
                    : "reads LDS byte 0x%x, which another wave wrote with no completed write and barrier "
                      "between",
                place, lane, at);
        if (byte->read_barriers != w->checks.barriers)
            byte->readers = 0, byte->read_barriers = w->checks.barriers;
        byte->readers |= 1u << w->index_in_workgroup;
        undefined |= byte->undefined;
    }
    if (undefined && d)
        for (int r = 0; r < (bytes + 3) / 4; r++)
            w->checks.vgpr_defined[(d - w->vgpr[0]) / WAVE_LANES + r] &= ~(UINT64_C(1) << lane);
    return 1;
}
INLINE int lds_write_allowed(struct Wave *w, uint64_t address, int bytes, int lane, const uint32_t *s,
                             int how, uint64_t at)
{
    struct LdsByte *byte = w->workgroup->lds_bytes;
    if (!byte)
        return 1;
    byte += address;
    for (int i = 0; i < bytes; i++, byte++) {
        uint64_t place = address + (uint64_t)i;
        int both_atomic = how == LDS_ATOMICALLY && byte->written == LDS_ATOMICALLY;
        if (how == LDS_ATOMICALLY && !byte->written)
            return lds_fault(w, "atomically changes LDS byte 0x%x, which was never written", place, lane, at);
        if (byte->written && !both_atomic && !lds_visible(w, byte) && byte->writer != w->index_in_workgroup)
            return lds_fault(w, "writes LDS byte 0x%x, which another wave wrote with no barrier between",
                place, lane, at);
        if (byte->readers & ~(1u << w->index_in_workgroup) && byte->read_barriers >= w->checks.barriers)
            return lds_fault(w, "writes LDS byte 0x%x, which another wave read with no barrier between",
                place, lane, at);
        byte->undefined = s && s >= w->vgpr[0] && s < w->vgpr[0] + 512 * WAVE_LANES
            && !(w->checks.vgpr_defined[(s - w->vgpr[0]) / WAVE_LANES + i / 4] >> lane & 1);
        byte->writer = (uint8_t)w->index_in_workgroup;
        byte->written = (uint8_t)how;
        byte->write_sequence = how == LDS_LOADED ? w->checks.vector_issued : w->checks.lds_issued;
    }
    return 1;
}

#else

#define lds_read_allowed(w, address, bytes, lane, d, at) 1
#define lds_write_allowed(w, address, bytes, lane, s, how, at) 1
#define lds_count_conflicts(w, lanes, bytes) (void)0

#endif
#endif
