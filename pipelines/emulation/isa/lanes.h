/* Access to a wave's registers and EXEC, and the loop over lanes that generated helpers are made of. */
#ifndef PREDECODE_EMULATION_LANES_H
#define PREDECODE_EMULATION_LANES_H

#include "numbers.h"
#include "wave.h"

#define HELPER static __attribute__((noinline, unused))
/* A generated helper.  `used` keeps the compiler from folding constant arguments into it: x * 1.0 must stay a
 * multiplication, which quiets NaNs and flushes denormals. */
#define OPERATION static __attribute__((noinline, used))
/* A function that mostly calls others: of a strict kernel, optimizing it takes longer than it saves. */
#define UNOPTIMIZED __attribute__((optnone, noinline))
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

/* Single-precision denormals as MODE bits 4..5 say: kept (3) or flushed on input and output (0). */
#if defined(__x86_64__)
INLINE uint32_t float_control(void)
{
    uint32_t control;
    __asm__ volatile("stmxcsr %0" : "=m"(control) : : "memory");
    return control;
}
INLINE void set_float_control(uint32_t control)
{
    __asm__ volatile("ldmxcsr %0" : : "m"(control) : "memory");
}
enum { FLUSH_DENORMALS = 0x8040 };
#elif defined(__aarch64__)
INLINE uint64_t float_control(void)
{
    uint64_t control;
    __asm__ volatile("mrs %0, fpcr" : "=r"(control) : : "memory");
    return control;
}
INLINE void set_float_control(uint64_t control)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(control) : "memory");
}
enum { FLUSH_DENORMALS = 1 << 24 };
#endif

/* Put MODE into force.  A fault for what is not emulated: directed rounding, partial flushing, flushed
 * doubles. */
HELPER void apply_mode(struct Wave *w, uint64_t address)
{
    uint32_t denormals = w->mode >> 4 & 3;
    if (w->mode & 0xf || (w->mode >> 6 & 3) != 3 || (denormals != 0 && denormals != 3))
        fault(w,
              "MODE asks for a rounding or denormal mode that is not emulated (it must round to nearest, "
              "keep or flush single-precision denormals and keep the others)",
              -1, address);
    else if (denormals)
        set_float_control(float_control() & ~FLUSH_DENORMALS);
    else
        set_float_control(float_control() | FLUSH_DENORMALS);
}

#endif
