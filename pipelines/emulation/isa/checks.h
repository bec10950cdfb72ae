/* Strict mode, registers: undefined values and missing waits (checks.c).
 *
 * Before each instruction, strict_step looks at its operands (a constant table made by the translator):
 *   - a register that waits for a load must not be touched before the s_waitcnt that completes the load;
 *   - undefined values may be moved and computed with, as compilers do, but must not become an address, a
 *     branch or EXEC, or data stored to global memory. */
#ifndef PREDECODE_EMULATION_CHECKS_H
#define PREDECODE_EMULATION_CHECKS_H

#include "lanes.h"

enum { FIRST_VECTOR = 256, SCC_NUMBER = 128 };

enum StepKind {
    STEP_LANES,     /* a lane's results depend on the same lane's operands */
    STEP_SCALAR,    /* scalar operands only */
    STEP_SELECT,    /* reads: false value, true value, mask */
    STEP_READLANE,  /* immediate: encoding of the lane operand, or 0xffff for the first active lane */
    STEP_WRITELANE, /* the same */
    /* the first read passes through DPP; immediate: control, bound_ctrl << 9, rows << 12, banks << 16 */
    STEP_DPP,
    STEP_PERMUTE,   /* reads: addresses, data; immediate: offset */
    STEP_BACKWARD_PERMUTE,
    STEP_SWIZZLE,   /* reads: data */
    STEP_MATRIX,    /* reads: A, B, C (when present); immediate: rows of the matrix, 1: all depends on all */
    STEP_LOAD,      /* results come from memory */
    STEP_WAIT,      /* immediate: the s_waitcnt operand */
    STEP_BARRIER,
};
enum Need { NEED_NOTHING, NEED_ADDRESS, NEED_STORED, NEED_CONDITION };
enum { COUNTS_VECTOR = 1, COUNTS_LDS = 2, COUNTS_SCALAR = 4 };

struct StepOperand {
    uint16_t number; /* 0..127 SGPR, 128 SCC, 256.. VGPR, 512.. AGPR */
    uint8_t count;
    uint8_t need;
};
struct Step {
    uint64_t address;
    uint32_t immediate;
    uint8_t kind, counters, reads, writes;
    struct StepOperand operands[8]; /* reads, then writes */
};

#if STRICT

/* Before an instruction: 1 after a fault. */
int strict_step(struct Wave *w, const struct Step *step);
/* The same for one instruction, two steps, whose two result words depend on different operands. */
int strict_pair(struct Wave *w, const struct Step *step);
/* Before the first instruction: the registers that the launcher set are defined. */
void strict_begin(struct Wave *w);
/* At the end: an ended wave has completed everything. */
void strict_end(struct Wave *w);
/* A fault whose message is made like printf's, from one number. */
void fault_with_number(struct Wave *w, const char *format, uint64_t number, int lane, uint64_t at);
/* Count the extra cycles of an LDS access in which lanes want different dwords of one bank. */
void lds_count_conflicts(struct Wave *w, const uint32_t *lanes, int bytes);

#endif
#endif
