/* Data moving between lanes: DPP, permutes, swizzles, lane reads and writes. */
#ifndef PREDECODE_EMULATION_CROSSLANE_H
#define PREDECODE_EMULATION_CROSSLANE_H

#include "lanes.h"

/* The lane that lane `l` reads under a DPP control word, or -1 where there is none. */
INLINE int dpp_source(int control, int l)
{
    int row = l & ~15, column = l & 15;
    if (control < 0x100)
        return (l & ~3) | (control >> 2 * (l & 3) & 3); /* quad_perm */
    int amount = control & 15;
    switch (control >> 4) {
    case 0x10: return column + amount < 16 ? l + amount : -1; /* row_shl */
    case 0x11: return column >= amount ? l - amount : -1;     /* row_shr */
    case 0x12: return row | ((column - amount) & 15);         /* row_ror */
    case 0x15: return row | amount;                           /* row_newbcast */
    default: break;
    }
    switch (control) {
    case 0x130: return l + 1 < 64 ? l + 1 : -1; /* wave_shl */
    case 0x134: return (l + 1) & 63;            /* wave_rol */
    case 0x138: return l - 1;                   /* wave_shr */
    case 0x13c: return (l - 1) & 63;            /* wave_ror */
    case 0x140: return row | (15 - column);     /* row_mirror */
    case 0x141: return (l & ~7) | (7 - (l & 7)); /* row_half_mirror */
    case 0x142: return row ? row - 1 : -1;      /* row_bcast15 */
    case 0x143: return l >= 32 ? 31 : -1;       /* row_bcast31 */
    default: return -1;
    }
}

/* Gather `count` registers under DPP.  `mask` receives the lanes to be written: EXEC, less the rows and
 * banks switched off, less (unless bound_ctrl says to read 0) the lanes that have no enabled source. */
INLINE void dpp_gather(const struct Wave *w, uint32_t *to, uint32_t *mask, const uint32_t *from, int count,
                       int control,
                       int bound_control, int rows, int banks)
{
    for (int l = 0; l < WAVE_LANES; l++) {
        int source = dpp_source(control, l);
        int readable = source >= 0 && w->lane_mask[source];
        int wanted = (rows >> (l >> 4) & 1) && (banks >> (l >> 2 & 3) & 1);
        for (int r = 0; r < count; r++)
            to[r * WAVE_LANES + l] = readable ? from[r * WAVE_LANES + source] : 0;
        mask[l] = wanted && (readable || bound_control) ? w->lane_mask[l] : 0;
    }
}

/* SDWA: a byte or word of each lane, zero or sign extended.  Selectors: 0..3 bytes, 4..5 words, 6 the
 * whole. */
INLINE uint32_t sdwa_pick(uint32_t value, int selector, int extend)
{
    if (selector == 6)
        return value;
    int bits = selector < 4 ? 8 : 16, shift = selector < 4 ? 8 * selector : 16 * (selector - 4);
    return extend ? (uint32_t)((int32_t)(value >> shift << (32 - bits)) >> (32 - bits))
                  : (value >> shift) & ((1u << bits) - 1);
}
INLINE void sdwa_select(uint32_t *to, const uint32_t *from, int selector, int extend)
{
    for (int l = 0; l < WAVE_LANES; l++)
        to[l] = sdwa_pick(from[l], selector, extend);
}
/* `unused` says what becomes of the other bits: 0 zero, 1 sign extension, 2 the old value. */
INLINE void sdwa_place(const struct Wave *w, uint32_t *d, const uint32_t *value, int selector, int unused)
{
    const uint32_t *m = w->lane_mask;
    int bits = selector < 4 ? 8 : selector < 6 ? 16 : 32;
    int shift = selector < 4 ? 8 * selector : selector < 6 ? 16 * (selector - 4) : 0;
    uint32_t field = bits == 32 ? ~0u : (1u << bits) - 1;
    for (int l = 0; l < WAVE_LANES; l++) {
        uint32_t part = (value[l] & field) << shift;
        uint32_t sign = value[l] >> (bits - 1) & 1 && bits + shift < 32 ? ~0u << (bits + shift) : 0;
        uint32_t rest = unused == 2 ? d[l] & ~(field << shift) : unused == 1 ? sign : 0;
        KEEP(d, l, part | rest);
    }
}

INLINE int first_lane(const struct Wave *w) { return exec_of(w) ? __builtin_ctzll(exec_of(w)) : 0; }

HELPER void permute_lanes(const struct Wave *w, uint32_t *d, const uint32_t *address, const uint32_t *data,
                          uint32_t offset)
{
    const uint32_t *m = w->lane_mask;
    uint32_t moved[WAVE_LANES] = {0};
    for (int l = 0; l < WAVE_LANES; l++)
        if (m[l])
            moved[(address[l] + offset) / 4 % WAVE_LANES] = data[l];
    LANES KEEP(d, l, moved[l]);
}
HELPER void backward_permute_lanes(const struct Wave *w, uint32_t *d, const uint32_t *address,
                                   const uint32_t *data,
                                   uint32_t offset)
{
    const uint32_t *m = w->lane_mask;
    uint32_t moved[WAVE_LANES];
    for (int l = 0; l < WAVE_LANES; l++) {
        uint32_t source = (address[l] + offset) / 4 % WAVE_LANES;
        moved[l] = m[source] ? data[source] : 0;
    }
    LANES KEEP(d, l, moved[l]);
}
/* ds_swizzle: bit-mask mode within 32 lanes, or quad permutation when bit 15 is set. -1: outside these two
 * modes. */
INLINE int swizzle_source(uint32_t offset, int l)
{
    if (offset & 0x8000)
        return (l & ~3) | (int)(offset >> 2 * (l & 3) & 3);
    int within = (int)((((uint32_t)(l & 31) & (offset & 31)) | (offset >> 5 & 31)) ^ (offset >> 10 & 31));
    return (l & 32) | within;
}
HELPER void swizzle_lanes(const struct Wave *w, uint32_t *d, const uint32_t *data, uint32_t offset)
{
    const uint32_t *m = w->lane_mask;
    uint32_t moved[WAVE_LANES];
    for (int l = 0; l < WAVE_LANES; l++) {
        int source = swizzle_source(offset, l);
        moved[l] = m[source] ? data[source] : 0;
    }
    LANES KEEP(d, l, moved[l]);
}

/* v_swap_b32 and the row swaps of gfx950: `distance` 0 swaps within the lane, 16 and 32 the odd rows of the
 * destination with the even rows of the source.  A lane that is off receives nothing, but may give. */
HELPER void swap_lanes(const struct Wave *w, uint32_t *d, uint32_t *s, int distance)
{
    const uint32_t *m = w->lane_mask;
    for (int l = 0; l < WAVE_LANES; l++) {
        if (distance && l & distance)
            continue;
        int other = l + distance;
        uint32_t from_source = s[l], from_destination = d[other];
        if (m[l])
            s[l] = from_destination;
        if (m[other])
            d[other] = from_source;
    }
}

#endif
