/* The state of one wave and of its workgroup, as translated kernels see it.
 *
 * A translated kernel is one C function, `int NAME(struct Wave *wave)`; NAME is translate.mangled_name's.  It
 * runs the wave until the wave ends, waits or fails, and returns one of the WAVE_* codes below.  Called again
 * with the same wave, it resumes behind the instruction that made it return.  A second function, `const char
 * *NAME_text(uint64_t code_offset)`, gives the text of the instruction that many bytes into the code (NULL
 * when there is none), for messages.  Translated code knows instructions by that offset alone.
 *
 * This header is plain C and valid C++; it needs nothing but the fixed-width integers.  All sizes are in
 * bytes.
 *
 * What the launcher prepares, per wave, before the first call
 *   - The whole structure is zero except for what follows.  It must be aligned to 64 bytes.
 *   - sgpr[0..]: the user SGPRs that the kernel descriptor enables, packed in this order: private segment
 *     buffer (4), dispatch pointer (2), queue pointer (2), kernel-argument pointer (2), dispatch id (2),
 *     flat scratch (2), private segment size (1), preloaded kernel arguments; then the system SGPRs
 *     enabled: workgroup id x, y, z, workgroup info, (private segment wave offset: absent on gfx942 and
 *     gfx950, where flat scratch is architected).
 *   - vgpr[0][lane]: the packed work-item id, x | y << 10 | z << 20 (gfx90a and later).  No other VGPR.
 *   - sgpr[SGPR_EXEC], sgpr[SGPR_EXEC + 1]: one bit per work-item that exists.  Lane masks are derived
 *     from it on entry; the launcher need not set `lane_mask`.
 *   - initialized_sgprs, initialized_vgprs: how many of each (from index 0) it set; strict mode calls all
 *     others undefined until they are written.
 *   - mode: the MODE register: the 8 float_mode bits of the descriptor (round and denormal) in bits 0..7,
 *     DX10_CLAMP in bit 8, IEEE in bit 9, FP16_OVFL in bit 23.  Translated code works in round-to-nearest
 *     with denormals kept (float_mode 0xF0) or single-precision denormals flushed (0xC0, which IREE's
 *     attention uses); a wave with another mode faults.
 *   - index_in_workgroup, workgroup, scratch, scratch_state, scratch_bytes_per_lane, code_address.
 *     Work-item i of the workgroup is lane i % 64 of wave i / 64.
 */
#ifndef PREDECODE_EMULATION_WAVE_H
#define PREDECODE_EMULATION_WAVE_H

#include <stddef.h>
#include <stdint.h>

enum {
    WAVE_ENDED = 0,   /* s_endpgm */
    WAVE_BARRIER = 1, /* waits for the other waves of its workgroup that have not ended */
    WAVE_YIELDED = 2, /* s_sleep, or a long loop: let other waves and workgroups run, then call again */
    WAVE_FAULTED = 3, /* a fault was given to `report` or to `check_global`; do not call again */
};

enum { WAVE_LANES = 64, SGPR_FLAT_SCRATCH = 102, SGPR_VCC = 106, SGPR_M0 = 124, SGPR_EXEC = 126,
    FIRST_AGPR = 256 };

/* Flat addresses with these upper halves are LDS and scratch (src_shared_base, src_private_base). */
#define SHARED_APERTURE UINT64_C(0x0001000000000000)
#define PRIVATE_APERTURE UINT64_C(0x0002000000000000)

struct Wave;
struct Workgroup;

/* What one wave did.  Waves add here only; sum over waves for a dispatch. */
struct WaveCounters {
    uint64_t salu, smem, valu, mfma, lds, vmem, branch, other; /* wave instructions by class */
    /* multiplies and adds done by MFMA (2 per product) */
    uint64_t matrix_operations;
    /* global memory, over the active lanes, SMEM included */
    uint64_t bytes_loaded, bytes_stored;
    uint64_t lds_bank_conflicts; /* extra LDS cycles from bank conflicts; counted in strict mode only */
};

/* One byte of LDS as strict mode remembers it. The launcher hands in lds_size of them, zeroed per
 * workgroup. */
struct LdsByte {
    uint32_t write_sequence;  /* sequence number of the writer's LDS or memory operation */
    uint32_t read_barriers;   /* barriers that the last reader had passed */
    uint32_t readers;         /* the waves that read the byte between those barriers, one bit each */
    uint8_t writer;           /* wave that wrote it last */
    uint8_t written;          /* 0 never, 1 by an LDS instruction, 2 by a load to LDS, 3 by an LDS atomic */
    uint8_t undefined;        /* the value written was itself undefined */
    uint8_t unused;
};

/* Strict mode's view of a wave's registers: who is defined, who waits for a load. */
struct WaveChecks {
    uint64_t vgpr_defined[512]; /* one bit per lane */
    uint32_t vgpr_vector_sequence[512], vgpr_lds_sequence[512]; /* outstanding load into it; 0 = none ever */
    uint32_t sgpr_scalar_sequence[128];
    uint8_t sgpr_defined[128];
    uint8_t scc_defined;
    uint32_t vector_issued, vector_done; /* vmcnt */
    uint32_t lds_issued, lds_done;       /* lgkmcnt, the LDS part */
    uint32_t scalar_issued, scalar_done; /* lgkmcnt, the SMEM part */
    uint32_t barriers;                   /* barriers passed or waited at */
    uint32_t vector_done_at_barrier[4], lds_done_at_barrier[4]; /* ring over `barriers` */
};

struct Wave {
    uint32_t vgpr[512][WAVE_LANES]; /* [register][lane]; the AGPRs are 256..511 */
    uint32_t lane_mask[WAVE_LANES]; /* EXEC, spread: 0 or ~0 per lane */
    uint32_t sgpr[128]; /* in the encoding's own numbering: VCC 106, M0 124, EXEC 126, ... */
    uint32_t scc;
    uint32_t mode;
    uint32_t resume; /* 0 before the first call; then where to go on */
    uint32_t index_in_workgroup;
    uint32_t initialized_sgprs, initialized_vgprs;
    uint32_t faulted;
    uint32_t turns; /* backward branches taken: now and then one yields */
    struct Workgroup *workgroup;
    /* lane l owns scratch[l * scratch_bytes_per_lane ..]; at least 16 readable bytes must follow */
    uint8_t *scratch;
    /* strict mode only, else NULL: what became of each byte of `scratch`, zeroed per workgroup */
    uint8_t *scratch_state;
    uint64_t scratch_bytes_per_lane;
    uint64_t code_address;   /* where the first byte of the code lies in device memory */
    uint64_t memory_changes; /* stores and atomics that may have changed global memory: signs of progress */
    struct WaveCounters counters;
    struct WaveChecks checks;
};

struct Workgroup {
    uint8_t *lds; /* lds_size bytes and at least 16 more that may be read and written */
    uint32_t lds_size;
    uint32_t wave_count;
    struct Wave *waves[16]; /* index_in_workgroup -> wave */
    struct LdsByte *lds_bytes; /* strict mode only, else NULL: lds_size entries */
    uint32_t id[3];
    uint32_t unused;
    void *dispatch_pointer; /* the AQL dispatch packet, for the launcher's own use */
    void *user;             /* the launcher's own */

    /* Strict mode.  Called for each active lane of a global, flat (global part), buffer or scalar access
     * before it is done (lane -1: scalar).  Returns 0 to let it pass; else the access is not done and the
     * wave ends as faulted, and the hook has kept its own message. */
    int (*check_global)(struct Workgroup *workgroup, uint64_t address, uint32_t bytes, int is_store, int lane,
                        uint64_t code_offset);
    /* Every other fault, in both modes (LDS, scratch, registers, waits, hazards, jumps).  `message` says
     * what is wrong in one line and lives only during the call; the launcher adds kernel, instruction text
     * and workgroup id. `lane` is -1 where no lane is to blame.  The wave then returns WAVE_FAULTED. */
    void (*report)(struct Workgroup *workgroup, struct Wave *wave, const char *message, int lane,
                   uint64_t code_offset);
};

#endif
