/* Global, flat, buffer, scratch and scalar memory. */
#ifndef PREDECODE_EMULATION_MEMORY_H
#define PREDECODE_EMULATION_MEMORY_H

#include "lanes.h"
#include "lds_checks.h"
#include "scratch.h"

/* How a loaded value fills its registers. */
enum Fill { FILL_WHOLE, FILL_U8, FILL_I8, FILL_U16, FILL_I16, FILL_LOW, FILL_HIGH };
/* D16 loads replace one half of the register: FILL_LOW/FILL_HIGH with the kind of the value beside. */
struct Shape {
    int bytes;       /* of memory per lane */
    enum Fill fill;  /* how `bytes` < 4 are extended */
    /* 0: the whole register; 1: low half only; 2: high half only (loads); stores: 2 takes the high half */
    int half;
};

INLINE uint32_t extend(uint32_t raw, enum Fill fill)
{
    switch (fill) {
    case FILL_U8: return (uint8_t)raw;
    case FILL_I8: return (uint32_t)(int8_t)raw;
    case FILL_U16: return (uint16_t)raw;
    case FILL_I16: return (uint32_t)(int16_t)raw;
    default: return raw;
    }
}
INLINE void put_lane(uint32_t *d, int l, const uint8_t *from, struct Shape shape)
{
    if (shape.fill == FILL_WHOLE) {
        uint32_t words[4];
        memcpy(words, from, (size_t)shape.bytes);
        for (int r = 0; r < shape.bytes / 4; r++)
            d[r * WAVE_LANES + l] = words[r];
        return;
    }
    uint32_t raw = 0;
    memcpy(&raw, from, (size_t)shape.bytes);
    raw = extend(raw, shape.fill);
    d[l] = shape.half == 0 ? raw : shape.half == 1 ? (d[l] & 0xffff0000u) | (raw & 0xffff)
        : (d[l] & 0xffff) | raw << 16;
}
INLINE void take_lane(uint8_t *to, const uint32_t *s, int l, struct Shape shape)
{
    if (shape.bytes >= 4) {
        uint32_t words[4];
        for (int r = 0; r < shape.bytes / 4; r++)
            words[r] = s[r * WAVE_LANES + l];
        memcpy(to, words, (size_t)shape.bytes);
        return;
    }
    uint32_t raw = shape.half == 2 ? s[l] >> 16 : s[l];
    memcpy(to, &raw, (size_t)shape.bytes);
}

/* Is the access inside live memory?  Non-strict code trusts it. */
INLINE int global_allowed(struct Wave *w, uint64_t address, int bytes, int is_store, int lane, uint64_t at)
{
#if STRICT
    struct Workgroup *group = w->workgroup;
    if (group->check_global && group->check_global(group, address, (uint32_t)bytes, is_store, lane, at)) {
        w->faulted = 1;
        return 0;
    }
#else
    (void)w, (void)address, (void)bytes, (void)is_store, (void)lane, (void)at;
#endif
    return 1;
}

enum Use { USE_LOAD, USE_STORE, USE_ATOMIC };

/* A flat address that is not global: LDS or scratch.  NULL is a fault.  `data`: the lane's registers. */
HELPER uint8_t *aperture_at(struct Wave *w, uint64_t address, int bytes, enum Use use, const uint32_t *data,
                            int lane, uint64_t at)
{
    uint64_t offset = (uint32_t)address;
    if (address >> 32 == PRIVATE_APERTURE >> 32) {
        uint8_t *place = scratch_at(w, offset, bytes, lane, at);
        if (!place || (use != USE_STORE && !scratch_read_allowed(w, place, bytes, lane, data, 0, at)))
            return NULL;
        if (use != USE_LOAD)
            scratch_written(w, place, bytes, lane, data);
        return place;
    }
    if (offset + (uint64_t)bytes > w->workgroup->lds_size) {
        fault(w, "flat access beyond the LDS of the workgroup", lane, at);
        return NULL;
    }
    int how = use == USE_ATOMIC ? LDS_ATOMICALLY : LDS_WRITTEN;
    (void)how;
    if (use == USE_LOAD ? !lds_read_allowed(w, offset, bytes, lane, data, at)
                        : !lds_write_allowed(w, offset, bytes, lane, data, how, at))
        return NULL;
    return w->workgroup->lds + offset;
}
INLINE int is_aperture(uint64_t address)
{
    return address >> 32 == SHARED_APERTURE >> 32 || address >> 32 == PRIVATE_APERTURE >> 32;
}
INLINE uint8_t *place(struct Wave *w, uint64_t address, int bytes, enum Use use, const uint32_t *data, int lane,
                      int flat, uint64_t at)
{
    if (flat && is_aperture(address))
        return aperture_at(w, address, bytes, use, data, lane, at);
    return global_allowed(w, address, bytes, use != USE_LOAD, lane, at) ? (uint8_t *)(uintptr_t)address : NULL;
}

/* Address forms: 64-bit lanes, or a scalar base with 32-bit lanes. */
HELPER void addresses_64(uint64_t *to, const uint32_t *lanes, int64_t offset)
{
    for (int l = 0; l < WAVE_LANES; l++)
        to[l] = (lanes[l] | (uint64_t)lanes[WAVE_LANES + l] << 32) + (uint64_t)offset;
}
HELPER void addresses_32(uint64_t *to, uint64_t base, const uint32_t *lanes, int64_t offset)
{
    for (int l = 0; l < WAVE_LANES; l++)
        to[l] = base + lanes[l] + (uint64_t)offset;
}

INLINE void move_lane(uint8_t *place, uint32_t *data, int l, struct Shape shape, enum Use use)
{
    if (use == USE_LOAD)
        put_lane(data, l, place, shape);
    else
        take_lane(place, data, l, shape);
}
INLINE void count_bytes(struct Wave *w, enum Use use, uint64_t bytes)
{
    *(use == USE_LOAD ? &w->counters.bytes_loaded : &w->counters.bytes_stored) += bytes;
    w->memory_changes += use != USE_LOAD;
}
INLINE void global_lanes(struct Wave *w, uint32_t *data, const uint64_t *addresses, struct Shape shape,
                         enum Use use, int flat, uint64_t at)
{
    uint64_t exec = exec_of(w);
    for (uint64_t left = exec; left; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint8_t *memory = place(w, addresses[l], shape.bytes, use, data, l, flat, at);
        if (!memory)
            return;
        move_lane(memory, data, l, shape, use);
    }
    count_bytes(w, use, (uint64_t)__builtin_popcountll(exec) * (uint64_t)shape.bytes);
}
/* Scratch: one 32-bit offset per lane, or the same one for all (`lanes` NULL). */
INLINE void scratch_lanes(struct Wave *w, uint32_t *data, const uint32_t *lanes, uint32_t base,
                          int32_t offset, struct Shape shape, enum Use use, uint64_t at)
{
    int spill = use == USE_LOAD && !lanes && scratch_is_spill(w, base + (uint32_t)offset, shape.bytes);
    (void)spill;
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint32_t from = base + (lanes ? lanes[l] : 0) + (uint32_t)offset;
        uint8_t *memory = scratch_at(w, from, shape.bytes, l, at);
        if (!memory || (use == USE_LOAD && !scratch_read_allowed(w, memory, shape.bytes, l, data, spill, at)))
            return;
        if (use == USE_STORE)
            scratch_written(w, memory, shape.bytes, l, data);
        move_lane(memory, data, l, shape, use);
    }
}

/* Buffers.  The descriptor: 48-bit base, 14-bit stride, swizzle in bit 63, byte count, format word. */
struct Buffer {
    uint64_t base;
    uint32_t stride, bytes;
    int usable; /* 0: an addressing mode that is not emulated */
};
INLINE struct Buffer buffer_of(const struct Wave *w, int index)
{
    uint32_t high = w->sgpr[index + 1], format = w->sgpr[index + 3];
    struct Buffer buffer = {
        w->sgpr[index] | (uint64_t)(high & 0xffff) << 32, high >> 16 & 0x3fff, w->sgpr[index + 2],
        !(high >> 31) && !(format >> 23 & 1)};
    return buffer;
}
/* Byte offset of each lane, soffset apart: a 32-bit sum that wraps.  0: the descriptor is not emulated. */
HELPER int buffer_offsets(struct Wave *w, uint64_t *to, struct Buffer buffer, const uint32_t *index,
                          const uint32_t *lanes, uint32_t offset, uint64_t at)
{
    if (!buffer.usable) {
        fault(w, "buffer descriptor with swizzling or thread-id addressing, which is not emulated", -1, at);
        return 0;
    }
    for (int l = 0; l < WAVE_LANES; l++)
        to[l] = (index ? index[l] : 0) * buffer.stride + (lanes ? lanes[l] : 0) + offset;
    return 1;
}
INLINE int buffer_inside(struct Buffer buffer, uint64_t offset, uint32_t scalar)
{
    return offset + scalar < buffer.bytes;
}
/* Between memory and `data`, by 32-bit components: out of range, loads give 0 and stores are dropped.  The
 * bytes that were in range; -1 after a fault. */
INLINE int buffer_exchange(struct Wave *w, uint8_t *data, struct Buffer buffer, uint64_t offset,
                           uint32_t scalar, int bytes, enum Use use, int lane, uint64_t at)
{
    uint64_t address = buffer.base + offset + scalar;
    int step = bytes < 4 ? bytes : 4, inside = 0;
    for (int part = 0; part < bytes; part += step) {
        if (!buffer_inside(buffer, offset + (uint64_t)part, scalar)) {
            memset(data + part, 0, (size_t)step);
            continue;
        }
        uint8_t *memory = (uint8_t *)(uintptr_t)address + part;
        if (!global_allowed(w, address + (uint64_t)part, step, use != USE_LOAD, lane, at))
            return -1;
        memcpy(use == USE_LOAD ? data + part : memory, use == USE_LOAD ? memory : data + part, (size_t)step);
        inside += step;
    }
    return inside;
}
INLINE void buffer_lanes(struct Wave *w, uint32_t *d, struct Buffer buffer, const uint64_t *offsets,
                         uint32_t scalar, struct Shape shape, enum Use use, uint64_t at)
{
    for (uint64_t left = exec_of(w); left; left &= left - 1) {
        int l = __builtin_ctzll(left);
        uint8_t data[16];
        if (use == USE_STORE)
            take_lane(data, d, l, shape);
        int inside = buffer_exchange(w, data, buffer, offsets[l], scalar, shape.bytes, use, l, at);
        if (inside < 0)
            return;
        if (use == USE_LOAD)
            put_lane(d, l, data, shape);
        count_bytes(w, use, (uint64_t)inside);
    }
}

/* Scalar loads: dword aligned; SBASE + offset. */
INLINE void scalar_load(struct Wave *w, int destination, int words, uint64_t address, uint64_t at)
{
    address &= ~UINT64_C(3);
    if (!global_allowed(w, address, 4 * words, 0, -1, at))
        return;
    memcpy(&w->sgpr[destination], (const void *)(uintptr_t)address, 4 * (size_t)words);
    w->counters.bytes_loaded += 4 * (uint64_t)words;
}
INLINE void scalar_buffer_load(struct Wave *w, int destination, int words, int descriptor, uint32_t offset,
                               uint64_t at)
{
    struct Buffer buffer = buffer_of(w, descriptor);
    uint64_t bytes = buffer.stride ? (uint64_t)buffer.stride * buffer.bytes : buffer.bytes;
    uint32_t value[16];
    offset &= ~3u;
    for (int i = 0; i < words; i++) {
        uint64_t address = buffer.base + offset + 4 * (uint64_t)i;
        value[i] = 0;
        if (offset + 4 * (uint64_t)i + 4 > bytes)
            continue;
        if (!global_allowed(w, address, 4, 0, -1, at))
            return;
        memcpy(&value[i], (const void *)(uintptr_t)address, 4);
        w->counters.bytes_loaded += 4;
    }
    memcpy(&w->sgpr[destination], value, 4 * (size_t)words);
}

#endif
