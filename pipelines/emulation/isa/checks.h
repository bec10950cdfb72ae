/* Strict mode: undefined registers and LDS, missing waits, LDS hazards between waves. */
#ifndef PREDECODE_EMULATION_CHECKS_H
#define PREDECODE_EMULATION_CHECKS_H

#include "lanes.h"

enum { LDS_WRITTEN = 1, LDS_LOADED = 2, LDS_ATOMICALLY = 3 };

INLINE int lds_read_allowed(struct Wave *w, uint64_t address, int bytes, int lane, uint32_t *d, uint64_t at)
{
    (void)w, (void)address, (void)bytes, (void)lane, (void)d, (void)at;
    return 1;
}
INLINE int lds_write_allowed(struct Wave *w, uint64_t address, int bytes, int lane, const uint32_t *s, int how, uint64_t at)
{
    (void)w, (void)address, (void)bytes, (void)lane, (void)s, (void)how, (void)at;
    return 1;
}
INLINE void lds_count_conflicts(struct Wave *w, const uint32_t *lanes, int bytes)
{
    (void)w, (void)lanes, (void)bytes;
}

#endif
