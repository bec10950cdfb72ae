/* LDS: reads, writes, transposing reads and loads from memory straight to LDS.
 * Out of range, hardware reads 0 and drops writes; here it is a fault, in both modes. */
#ifndef PREDECODE_EMULATION_LDS_H
#define PREDECODE_EMULATION_LDS_H

#include "lds_checks.h"
#include "memory.h"

HELPER uint8_t *lds_outside(struct Wave *w, int lane, uint64_t at)
{
    fault(w, "LDS access beyond the LDS of the workgroup", lane, at);
    return NULL;
}
INLINE uint8_t *lds_at(struct Wave *w, uint64_t address, int bytes, int lane, uint64_t at)
{
    if (address + (uint64_t)bytes > w->workgroup->lds_size)
        return lds_outside(w, lane, at);
    return w->workgroup->lds + address;
}

INLINE void lds_lanes(struct Wave *w, const uint32_t *lanes, uint32_t *data, uint32_t offset,
                      struct Shape shape, enum Use use, uint64_t at)
{
    lds_count_conflicts(w, lanes, shape.bytes);
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint64_t address = (uint32_t)(lanes[l] + offset);
        uint8_t *memory = lds_at(w, address, shape.bytes, l, at);
        if (!memory)
            return;
        if (use == USE_LOAD ? !lds_read_allowed(w, address, shape.bytes, l, data, at)
                            : !lds_write_allowed(w, address, shape.bytes, l, data, LDS_WRITTEN, at))
            return;
        move_lane(memory, data, l, shape, use);
    }
}

/* Transposing reads (gfx950): in each group of 16 lanes, every lane reads its 64 (96) bits; the group is
 * then a matrix whose rows are runs of lanes, and lane i receives column i.  `bits` per element;
 * `elements` per lane. */
INLINE void lds_load_transposed(struct Wave *w, uint32_t *d, const uint32_t *lanes, uint32_t offset, int bits,
                                int elements, uint64_t at)
{
    int bytes = bits * elements / 8, row_lanes = 16 / elements;
    uint8_t data[WAVE_LANES][16];
    memset(data, 0, sizeof data);
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint64_t address = (uint32_t)(lanes[l] + offset);
        const uint8_t *from = lds_at(w, address, bytes, l, at);
        if (!from || !lds_read_allowed(w, address, bytes, l, d, at))
            return;
        memcpy(data[l], from, (size_t)bytes);
    }
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        int l = __builtin_ctzll(left), column = l & 15;
        uint32_t words[3] = {0, 0, 0};
        for (int row = 0; row < elements; row++) {
            const uint8_t *source = data[(l & ~15) + row * row_lanes + column / elements];
            int from = column % elements * bits, to = row * bits;
            uint32_t raw = 0;
            memcpy(&raw, source + from / 8, 4);
            uint64_t value = (uint64_t)(raw >> from % 8 & ((1u << bits) - 1)) << to % 32;
            words[to / 32] |= (uint32_t)value;
            if (value >> 32)
                words[to / 32 + 1] |= (uint32_t)(value >> 32);
        }
        for (int r = 0; r < bytes / 4; r++)
            d[r * WAVE_LANES + l] = words[r];
    }
}

/* Loads to LDS: lane l's dwords go to M0 + offset + l * size.  Bytes and halves are extended to a dword. */
INLINE void lds_fill(struct Wave *w, uint32_t offset, int l, const uint8_t *data, struct Shape shape,
                     uint64_t at)
{
    int size = shape.bytes < 4 ? 4 : shape.bytes;
    uint64_t address = (uint64_t)(w->sgpr[SGPR_M0] & 0xffff) + offset + (uint64_t)(l * size);
    if (w->workgroup->lds_size > 0x10000)
        address = (uint64_t)w->sgpr[SGPR_M0] + offset + (uint64_t)(l * size);
    uint8_t *to = lds_at(w, address, size, l, at);
    if (!to || !lds_write_allowed(w, address, size, l, NULL, LDS_LOADED, at))
        return;
    uint32_t raw = 0;
    if (shape.bytes < 4) {
        memcpy(&raw, data, (size_t)shape.bytes);
        raw = extend(raw, shape.fill);
        memcpy(to, &raw, 4);
    } else {
        memcpy(to, data, (size_t)size);
    }
}
INLINE void global_to_lds(struct Wave *w, const uint64_t *addresses, uint32_t offset, struct Shape shape,
                          uint64_t at)
{
    for (uint64_t left = exec_of(w); left && !w->faulted; left &= left - 1) {
        int l = __builtin_ctzll(left);
        if (!global_allowed(w, addresses[l], shape.bytes, 0, l, at))
            return;
        lds_fill(w, offset, l, (const uint8_t *)(uintptr_t)addresses[l], shape, at);
        w->counters.bytes_loaded += (uint64_t)shape.bytes;
    }
}
INLINE void buffer_to_lds(struct Wave *w, struct Buffer buffer, const uint64_t *offsets, uint32_t scalar,
                          uint32_t offset,
                          struct Shape shape, uint64_t at)
{
    for (uint64_t left = exec_of(w); left && !w->faulted; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint8_t data[16] = {0};
        int inside = buffer_exchange(w, data, buffer, offsets[l], scalar, shape.bytes, USE_LOAD, l, at);
        if (inside < 0)
            return;
        lds_fill(w, offset, l, data, shape, at);
        w->counters.bytes_loaded += (uint64_t)inside;
    }
}

#endif
