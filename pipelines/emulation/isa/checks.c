/* Strict mode's functions: built once and linked with every strictly translated kernel. */
#define STRICT 1
#include "checks.h"

#include <stdio.h>

#include "crosslane.h"

static void register_name(char *to, size_t size, int number)
{
    if (number >= 512)
        snprintf(to, size, "a%d", number - 512);
    else if (number >= FIRST_VECTOR)
        snprintf(to, size, "v%d", number - FIRST_VECTOR);
    else if (number == SCC_NUMBER)
        snprintf(to, size, "scc");
    else if (number == SGPR_VCC || number == SGPR_VCC + 1)
        snprintf(to, size, "vcc");
    else if (number == SGPR_M0)
        snprintf(to, size, "m0");
    else
        snprintf(to, size, "s%d", number);
}
static int fault_of_register(struct Wave *w, const struct Step *step, int number, int lane, const char *what)
{
    char name[16], message[160];
    register_name(name, sizeof name, number);
    snprintf(message, sizeof message, "%s %s", name, what);
    fault(w, message, lane, step->address);
    return 1;
}

/* Is a load into this register still under way? */
INLINE int pending(const struct WaveChecks *c, int number, const char **wait)
{
    if (number >= FIRST_VECTOR) {
        int r = number - FIRST_VECTOR;
        *wait = c->vgpr_vector_sequence[r] > c->vector_done
            ? "is used before the s_waitcnt vmcnt that completes its load"
            : "is used before the s_waitcnt lgkmcnt that completes its load";
        return c->vgpr_vector_sequence[r] > c->vector_done || c->vgpr_lds_sequence[r] > c->lds_done;
    }
    *wait = "is used before the s_waitcnt lgkmcnt(0) that completes its scalar load";
    return number < 128 && c->sgpr_scalar_sequence[number] > c->scalar_done;
}
/* Lanes of a register that hold a defined value. */
INLINE uint64_t defined_lanes(const struct Wave *w, int number)
{
    const struct WaveChecks *c = &w->checks;
    if (number >= FIRST_VECTOR)
        return c->vgpr_defined[number - FIRST_VECTOR];
    if (number == SCC_NUMBER)
        return c->scc_defined ? ~UINT64_C(0) : 0;
    return number >= SGPR_EXEC || c->sgpr_defined[number] ? ~UINT64_C(0) : 0;
}
INLINE uint64_t operand_lanes(const struct Wave *w, struct StepOperand operand)
{
    uint64_t defined = ~UINT64_C(0);
    for (int i = 0; i < operand.count; i++)
        defined &= defined_lanes(w, operand.number + i);
    return defined;
}

/* Definedness of a matrix result: its row of A, its column of B, its C. */
static void matrix_defined(struct Wave *w, const struct Step *step)
{
    uint64_t a = operand_lanes(w, step->operands[0]), b = operand_lanes(w, step->operands[1]);
    struct StepOperand to = step->operands[step->reads];
    int size = (int)step->immediate, has_c = step->reads > 2 && step->operands[2].count == to.count;
    if (a == ~UINT64_C(0) && b == ~UINT64_C(0) && !has_c) {
        for (int r = 0; r < to.count; r++)
            w->checks.vgpr_defined[to.number + r - FIRST_VECTOR] = ~UINT64_C(0);
        return;
    }
    uint64_t rows = 0, columns = 0; /* undefined ones */
    for (int l = 0; l < WAVE_LANES; l++) {
        rows |= (uint64_t)!(a >> l & 1) << l % size;
        columns |= (uint64_t)!(b >> l & 1) << l % size;
    }
    for (int r = 0; r < to.count; r++) {
        uint64_t defined = 0;
        uint64_t c = has_c ? defined_lanes(w, step->operands[2].number + r) : ~UINT64_C(0);
        for (int l = 0; l < WAVE_LANES; l++) {
            int row = size == 1 ? 0 : size == 32 ? 8 * (r % 16 / 4) + 4 * (l / 32) + r % 4 : size == 16
                ? 4 * (l / 16) + r % 4 : r % 4;
            defined |= (uint64_t)!((rows >> row & 1) | (columns >> l % size & 1)) << l;
        }
        w->checks.vgpr_defined[to.number + r - FIRST_VECTOR] = defined & c;
    }
}

/* Lanes whose result is defined, from the operands as they are before the instruction. */
static uint64_t result_lanes(struct Wave *w, const struct Step *step)
{
    uint64_t exec = exec_of(w), defined = ~UINT64_C(0), moved = 0;
    uint64_t last = step->reads ? operand_lanes(w, step->operands[step->reads - 1]) : defined;
    uint32_t offset = step->immediate;
    switch (step->kind) {
    case STEP_LOAD: return defined;
    case STEP_SELECT: {
        struct StepOperand mask = step->operands[2];
        uint64_t chosen = get_64(w, mask.number);
        uint64_t no = operand_lanes(w, step->operands[0]), yes = operand_lanes(w, step->operands[1]);
        return ((chosen & yes) | (~chosen & no)) & operand_lanes(w, mask);
    }
    case STEP_PERMUTE:
        moved = ~UINT64_C(0);
        for (int l = 0; l < WAVE_LANES; l++)
            if (exec >> l & 1 && !(last >> l & 1))
                moved &= ~(UINT64_C(1) << (w->vgpr[step->operands[0].number - FIRST_VECTOR][l]
                    + offset) / 4 % WAVE_LANES);
        return moved;
    case STEP_BACKWARD_PERMUTE:
        for (int l = 0; l < WAVE_LANES; l++) {
            int source = (int)((w->vgpr[step->operands[0].number - FIRST_VECTOR][l]
                + offset) / 4 % WAVE_LANES);
            moved |= (uint64_t)((last >> source & 1) | !(exec >> source & 1)) << l;
        }
        return moved;
    case STEP_SWIZZLE:
        for (int l = 0; l < WAVE_LANES; l++) {
            int source = swizzle_source(offset, l);
            moved |= (uint64_t)((last >> source & 1) | !(exec >> source & 1)) << l;
        }
        return moved;
    case STEP_DPP: {
        uint64_t first = operand_lanes(w, step->operands[0]);
        for (int l = 0; l < WAVE_LANES; l++) {
            int source = dpp_source((int)(offset & 0x1ff), l);
            int readable = source >= 0 && exec >> source & 1;
            moved |= (uint64_t)(readable ? first >> source & 1 : 1) << l;
        }
        for (int i = 1; i < step->reads; i++)
            moved &= operand_lanes(w, step->operands[i]);
        return moved;
    }
    default:
        for (int i = 0; i < step->reads; i++)
            defined &= operand_lanes(w, step->operands[i]);
        return defined;
    }
}
INLINE uint64_t dpp_written(const struct Wave *w, uint32_t immediate)
{
    uint64_t exec = exec_of(w), written = 0;
    for (int l = 0; l < WAVE_LANES; l++) {
        int source = dpp_source((int)(immediate & 0x1ff), l);
        int readable = source >= 0 && exec >> source & 1;
        int wanted = (immediate >> (12 + (l >> 4)) & 1) && (immediate >> (16 + (l >> 2 & 3)) & 1);
        written |= (uint64_t)(wanted && (readable || immediate >> 9 & 1)) << l;
    }
    return written & exec;
}
INLINE int chosen_lane(const struct Wave *w, uint32_t code)
{
    if (code == 0xffff)
        return first_lane(w);
    return (int)((code < 128 ? w->sgpr[code] : code - 128) & 63);
}

static void define_results(struct Wave *w, const struct Step *step, uint64_t defined)
{
    struct WaveChecks *c = &w->checks;
    uint64_t exec = exec_of(w), written = exec;
    int lane = -1;
    if (step->kind == STEP_DPP)
        written = dpp_written(w, step->immediate);
    if (step->kind == STEP_READLANE || step->kind == STEP_WRITELANE) {
        lane = chosen_lane(w, step->immediate);
        defined = step->kind == STEP_WRITELANE ? operand_lanes(w, step->operands[0]) : defined;
        written = UINT64_C(1) << lane;
    }
    for (int i = step->reads; i < step->reads + step->writes; i++)
        for (int r = 0; r < step->operands[i].count; r++) {
            int number = step->operands[i].number + r;
            int whole = step->kind == STEP_SCALAR ? defined == ~UINT64_C(0)
                : lane >= 0 ? (int)(defined >> lane & 1) : (written & ~defined) == 0;
            if (number >= FIRST_VECTOR) {
                uint64_t *to = &c->vgpr_defined[number - FIRST_VECTOR];
                *to = (*to & ~written) | (written & defined);
                if (step->counters & COUNTS_VECTOR)
                    c->vgpr_vector_sequence[number - FIRST_VECTOR] = c->vector_issued;
                if (step->counters & COUNTS_LDS)
                    c->vgpr_lds_sequence[number - FIRST_VECTOR] = c->lds_issued;
            } else if (number == SCC_NUMBER) {
                c->scc_defined = (uint8_t)whole;
            } else if (number < SGPR_EXEC) {
                c->sgpr_defined[number] = (uint8_t)whole;
                if (step->counters & COUNTS_SCALAR)
                    c->sgpr_scalar_sequence[number] = c->scalar_issued;
            } else if (!whole) {
                fault(w, "EXEC is made from an undefined value", -1, step->address);
            }
        }
}

static void strict_wait(struct WaveChecks *c, uint32_t operand)
{
    uint32_t vector = (operand & 15) | (operand >> 14 & 3) << 4, local = operand >> 8 & 15;
    if (c->vector_issued - c->vector_done > vector)
        c->vector_done = c->vector_issued - vector;
    if (c->lds_issued - c->lds_done > local)
        c->lds_done = c->lds_issued - local;
    if (local == 0) /* scalar loads return out of order */
        c->scalar_done = c->scalar_issued;
}

/* Operands that must not be touched yet, or not be undefined: 1 after a fault. */
static int operands_refused(struct Wave *w, const struct Step *step)
{
    static const char *const undefined[] = {
        "", "is undefined (never written) and used in an address",
        "is undefined (never written) and stored to memory",
            "is undefined (never written) and decides a branch"};
    struct WaveChecks *c = &w->checks;
    for (int i = 0; i < step->reads + step->writes; i++) {
        struct StepOperand operand = step->operands[i];
        for (int r = 0; r < operand.count; r++) {
            const char *wait;
            int number = operand.number + r;
            if (pending(c, number, &wait)) {
                /* A load may follow a load into the same register: they return in order. */
                if (i >= step->reads && step->counters)
                    continue;
                return fault_of_register(w, step, number, -1, wait);
            }
            if (i >= step->reads || !operand.need)
                continue;
            uint64_t lanes = number >= FIRST_VECTOR ? exec_of(w) : ~UINT64_C(0);
            uint64_t missing = lanes & ~defined_lanes(w, number);
            if (missing)
                return fault_of_register(w, step, number, number >= FIRST_VECTOR
                    ? __builtin_ctzll(missing) : -1,
                                         undefined[operand.need]);
        }
    }
    return 0;
}

int strict_step(struct Wave *w, const struct Step *step)
{
    struct WaveChecks *c = &w->checks;
    if (step->kind == STEP_WAIT) {
        strict_wait(c, step->immediate);
        return 0;
    }
    if (operands_refused(w, step))
        return 1;
    c->vector_issued += step->counters & COUNTS_VECTOR ? 1 : 0;
    c->lds_issued += step->counters & COUNTS_LDS ? 1 : 0;
    c->scalar_issued += step->counters & COUNTS_SCALAR ? 1 : 0;
    if (step->kind == STEP_BARRIER) {
        c->lds_done_at_barrier[c->barriers & 3] = c->lds_done;
        c->vector_done_at_barrier[c->barriers & 3] = c->vector_done;
        c->barriers++;
    } else if (step->kind == STEP_MATRIX) {
        matrix_defined(w, step);
    } else if (step->writes) {
        define_results(w, step, result_lanes(w, step));
    }
    return w->faulted != 0;
}
/* Both words are judged before either is marked: the destination may overlap the sources. */
int strict_pair(struct Wave *w, const struct Step *step)
{
    if (operands_refused(w, step) || operands_refused(w, step + 1))
        return 1;
    uint64_t first = result_lanes(w, step), second = result_lanes(w, step + 1);
    define_results(w, step, first);
    define_results(w, step + 1, second);
    return w->faulted != 0;
}
void strict_begin(struct Wave *w)
{
    for (uint32_t i = 0; i < w->initialized_sgprs && i < 128; i++)
        w->checks.sgpr_defined[i] = 1;
    for (uint32_t i = 0; i < w->initialized_vgprs && i < 256; i++)
        w->checks.vgpr_defined[i] = exec_of(w);
    w->checks.sgpr_defined[SGPR_FLAT_SCRATCH] = w->checks.sgpr_defined[SGPR_FLAT_SCRATCH + 1] = 1;
}
void strict_end(struct Wave *w)
{
    for (int i = 0; i < 4; i++)
        w->checks.lds_done_at_barrier[i] = w->checks.vector_done_at_barrier[i] = UINT32_MAX;
    w->checks.vector_done = w->checks.vector_issued;
}

void fault_with_number(struct Wave *w, const char *format, uint64_t number, int lane, uint64_t at)
{
    char message[160];
    snprintf(message, sizeof message, format, (unsigned)number);
    fault(w, message, lane, at);
}

/* Extra cycles because lanes want different dwords of one of the 32 banks; 32 lanes of 4 bytes go
 * together, fewer of wider ones. */
void lds_count_conflicts(struct Wave *w, const uint32_t *lanes, int bytes)
{
    uint64_t exec = exec_of(w);
    int words = bytes < 4 ? 1 : bytes / 4, together = words == 1 ? 32 : words == 2 ? 16 : 8;
    for (int first = 0; first < WAVE_LANES; first += together) {
        uint32_t seen[32][64];
        int counts[32] = {0}, most = 1;
        for (int l = first; l < first + together; l++) {
            if (!(exec >> l & 1))
                continue;
            for (int i = 0; i < words; i++) {
                uint32_t word = lanes[l] / 4 + (uint32_t)i, bank = word % 32;
                int known = 0;
                for (int k = 0; k < counts[bank]; k++)
                    known |= seen[bank][k] == word;
                if (!known)
                    seen[bank][counts[bank]++] = word;
            }
        }
        for (int bank = 0; bank < 32; bank++)
            most = counts[bank] > most ? counts[bank] : most;
        w->counters.lds_bank_conflicts += (uint64_t)(most - 1);
    }
}
