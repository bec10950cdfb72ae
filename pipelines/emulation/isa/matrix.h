/* MFMA: D = A * B + C for a whole wave.
 *
 * Layout, for M x N x K with `blocks` independent blocks, 64 lanes:
 *   A: lane l holds row l % M of block l / M % blocks, and `depth` consecutive k from depth * (l / (M *
 *     blocks)).
 *   B: the same with columns.
 *   C, D: lane l holds column l % N; its registers run over groups of 4 rows: for M = N = 32 register r is
 *     row 8 * (r / 4) + 4 * (l / 32) + r % 4; for 16 it is 4 * (l / 16) + r; for 4 it is r, the block
 *     being l / 4.
 *   Blocks of 32 and 16 follow each other in registers.  F64 has groups of one row: 4 * r + l / 16.
 * Products are accumulated in single precision with fused multiply-adds over ascending k: the last bits
 * may differ from hardware, whose order of summation is its own. */
#ifndef PREDECODE_EMULATION_MATRIX_H
#define PREDECODE_EMULATION_MATRIX_H

#include "lanes.h"
#include "small_floats.h"

struct MatrixForm {
    int m, blocks, k, depth; /* square: n == m */
};

INLINE int matrix_registers(struct MatrixForm f) { return f.m * f.m * f.blocks / WAVE_LANES; }

/* Row in the M x M block and block number of register r in lane l. */
INLINE int row_of(struct MatrixForm f, int r, int l)
{
    if (f.m == 32)
        return 8 * (r % 16 / 4) + 4 * (l / 32) + r % 4;
    return f.m == 16 ? 4 * (l / 16) + r % 4 : r;
}
INLINE int block_of(struct MatrixForm f, int r, int l)
{
    return f.m == 32 ? r / 16 : f.m == 16 ? r / 4 : l / 4;
}

/* Operand values in [block][k][row or column] order. */
INLINE int operand_at(struct MatrixForm f, int l, int e)
{
    int block = l / f.m % f.blocks, k = l / (f.m * f.blocks) * f.depth + e;
    return (block * f.k + k) * f.m + l % f.m;
}

#define MATRIX(name, element, sum_type, multiply_add)                                                        \
    INLINE void name(sum_type *d, const element *a, const element *b, struct MatrixForm f)                   \
    {                                                                                                        \
        for (int block = 0; block < f.blocks; block++)                                                       \
            for (int i = 0; i < f.m; i++) {                                                                  \
                sum_type row[32];                                                                            \
                memcpy(row, d + (block * f.m + i) * f.m, sizeof(sum_type) * (size_t)f.m);                    \
                for (int k = 0; k < f.k; k++) {                                                              \
                    element x = a[(block * f.k + k) * f.m + i];                                              \
                    const element *y = b + (block * f.k + k) * f.m;                                          \
                    for (int j = 0; j < f.m; j++)                                                            \
                        row[j] = multiply_add;                                                               \
                }                                                                                            \
                memcpy(d + (block * f.m + i) * f.m, row, sizeof(sum_type) * (size_t)f.m);                    \
            }                                                                                                \
    }
MATRIX(multiply_f32, float, float, __builtin_fmaf(x, y[j], row[j]))
MATRIX(multiply_i8, int32_t, int32_t, (int32_t)((uint32_t)row[j] + (uint32_t)(x * y[j])))

/* C in, D out, 32-bit. `c` NULL: the constant `constant`. */
INLINE void take_accumulator(uint32_t *to, const uint32_t *c, uint32_t constant, struct MatrixForm f)
{
    for (int r = 0; r < matrix_registers(f); r++)
        for (int l = 0; l < WAVE_LANES; l++) {
            int place = (block_of(f, r, l) * f.m + row_of(f, r, l)) * f.m + l % f.m;
            to[place] = c ? c[r * WAVE_LANES + l] : constant;
        }
}
INLINE void put_accumulator(uint32_t *d, const uint32_t *from, struct MatrixForm f)
{
    for (int r = 0; r < matrix_registers(f); r++)
        for (int l = 0; l < WAVE_LANES; l++)
            d[r * WAVE_LANES + l] = from[(block_of(f, r, l) * f.m + row_of(f, r, l)) * f.m + l % f.m];
}

INLINE float decode_f32(uint32_t raw) { return as_f32(raw); }
INLINE int32_t decode_i8(uint32_t raw) { return (int8_t)raw; }

/* TAKE(name, element, bits, decode): unpack an operand's registers; element e of lane l is bits [e * bits,
 * +bits). */
#define TAKE(name, element, bits, decode)                                                                    \
    INLINE void name(element *to, const uint32_t *s, struct MatrixForm f)                                    \
    {                                                                                                        \
        for (int e = 0; e < f.depth; e++) {                                                                  \
            const uint32_t *word = s + e * bits / 32 * WAVE_LANES;                                           \
            for (int l = 0; l < WAVE_LANES; l++)                                                             \
                to[operand_at(f, l,                                                                          \
                    e)] = decode((word[l] >> e * bits % 32) & (uint32_t)((UINT64_C(1) << bits) - 1));        \
        }                                                                                                    \
    }
TAKE(take_f32, float, 32, decode_f32)
TAKE(take_f16, float, 16, as_f16)
TAKE(take_bf16, float, 16, as_bf16)
TAKE(take_i8, int32_t, 8, decode_i8)
TAKE(take_fnuz_e4m3, float, 8, fnuz_e4m3)
TAKE(take_fnuz_e5m2, float, 8, fnuz_e5m2)
TAKE(take_ocp_e4m3, float, 8, ocp_e4m3)
TAKE(take_ocp_e5m2, float, 8, ocp_e5m2)

#define MFMA_BODY(element, take_a, take_b, multiply, shape, d, a, b, c, constant)                            \
    do {                                                                                                     \
        const struct MatrixForm form = shape;                                                                \
        element left[WAVE_LANES * 32], right[WAVE_LANES * 32];                                               \
        uint32_t sum[32 * 32 * 2];                                                                           \
        take_a(left, a, form);                                                                               \
        take_b(right, b, form);                                                                              \
        take_accumulator(sum, c, constant, form);                                                            \
        multiply((element *)(void *)sum, left, right, form);                                                 \
        put_accumulator(d, sum, form);                                                                       \
    } while (0)

/* SMFMAC, size x size x k: D += A * B.  Lane l holds row l % size of A and as many k as a dense operand would
 * give it, of which its `kept` elements are two out of each four: bits 2 * kept * set + 2 * e of its index
 * register say where in its four element e stands.  B is dense. */
#define SMFMAC_BODY(element, take_a, take_b, multiply, size, k, kept, d, a, b, c, index, set)               \
    do {                                                                                                    \
        const struct MatrixForm packed = {size, 1, (k) / 2, kept}, form = {size, 1, k, 2 * (kept)};         \
        element few[WAVE_LANES * 16], left[WAVE_LANES * 32] = {0}, right[WAVE_LANES * 32];                  \
        uint32_t sum[32 * 32];                                                                              \
        take_a(few, a, packed);                                                                             \
        for (int l = 0; l < WAVE_LANES; l++)                                                                \
            for (int e = 0; e < (kept); e++) {                                                              \
                int within = (index)[l] >> (2 * (kept) * (set) + 2 * e) % 32 & 3;                           \
                left[operand_at(form, l, e / 2 * 4 + within)] = few[operand_at(packed, l, e)];              \
            }                                                                                               \
        take_b(right, b, form);                                                                             \
        take_accumulator(sum, c, 0, form);                                                                  \
        multiply((element *)(void *)sum, left, right, form);                                                \
        put_accumulator(d, sum, form);                                                                      \
    } while (0)

/* The f8f6f4 forms: 32 elements per lane, block = l / M.  8-bit elements lie in two runs of 16 (k = 16 *
 * block, and as much beyond K / 2), smaller ones in one run of 32.  A lane's scale belongs to the 32 k
 * from 32 * block. */
INLINE uint32_t element_bits(const uint32_t *s, int l, int e, int bits)
{
    int from = e * bits, word = from / 32;
    uint64_t pair = s[word * WAVE_LANES + l];
    if (from % 32 + bits > 32)
        pair |= (uint64_t)s[(word + 1) * WAVE_LANES + l] << 32;
    return (uint32_t)(pair >> from % 32) & ((1u << bits) - 1);
}
INLINE int selected_k(int size, int depth, int bits, int l, int e)
{
    int block = l / size;
    return bits == 8 ? e / 16 * (depth / 2) + 16 * block + e % 16 : 32 * block + e;
}
INLINE float block_scale(const uint32_t *scale, int byte, int lane)
{
    uint32_t exponent = scale ? scale[lane] >> 8 * byte & 255 : 127;
    return exponent == 255 ? __builtin_nanf("") : (float)scale_f64(1.0, (int32_t)exponent - 127);
}
#define TAKE_SELECTED(to, s, size, depth, decode, bits, scale, byte)                                         \
    for (int e = 0; e < 32; e++)                                                                             \
        for (int l = 0; l < WAVE_LANES; l++) {                                                               \
            int k = selected_k(size, depth, bits, l, e), scale_lane = k / 32 * (size) + l % (size);          \
            (to)[k * (size) + l % (size)] = decode(element_bits(s, l, e, bits)) * block_scale(scale,         \
                byte, scale_lane);                                                                           \
        }
#define MFMA_SELECTED(d, a, b, c, constant, size, depth, decode_a, bits_a, decode_b, bits_b, scale_a,        \
    byte_a, scale_b, byte_b)                                                                                 \
    do {                                                                                                     \
        const struct MatrixForm form = {size, 1, depth, 32};                                                 \
        float left[WAVE_LANES * 32], right[WAVE_LANES * 32];                                                 \
        uint32_t sum[32 * 32];                                                                               \
        TAKE_SELECTED(left, a, size, depth, decode_a, bits_a, scale_a, byte_a)                               \
        TAKE_SELECTED(right, b, size, depth, decode_b, bits_b, scale_b, byte_b)                              \
        take_accumulator(sum, c, constant, form);                                                            \
        multiply_f32((float *)(void *)sum, left, right, form);                                               \
        put_accumulator(d, sum, form);                                                                       \
    } while (0)

/* F64: 16 x 16 x 4 (one block) and 4 x 4 x 4 (four blocks, block = l / 4 % 4). */
INLINE double pair_f64(const uint32_t *s, int r, int l)
{
    return as_f64(s[2 * r * WAVE_LANES + l] | (uint64_t)s[(2 * r + 1) * WAVE_LANES + l] << 32);
}
HELPER void mfma_f64(uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c, double constant,
                     int m,
                     int negate)
{
    int registers = m == 16 ? 4 : 1;
    uint64_t result[4][WAVE_LANES];
    for (int r = 0; r < registers; r++)
        for (int l = 0; l < WAVE_LANES; l++) {
            int i = m == 16 ? 4 * r + l / 16 : l / 16, j = l % m, block = m == 16 ? 0 : l / 4 % 4;
            double sum = c ? pair_f64(c, r, l) : constant;
            sum = negate & 4 ? -sum : sum;
            for (int k = 0; k < 4; k++) {
                int base = m == 16 ? 16 * k : 16 * k + 4 * block;
                double x = pair_f64(a, 0, base + i), y = pair_f64(b, 0, base + j);
                sum = __builtin_fma(negate & 1 ? -x : x, negate & 2 ? -y : y, sum);
            }
            result[r][l] = bits_f64(sum);
        }
    for (int r = 0; r < registers; r++)
        for (int l = 0; l < WAVE_LANES; l++) {
            d[2 * r * WAVE_LANES + l] = (uint32_t)result[r][l];
            d[(2 * r + 1) * WAVE_LANES + l] = (uint32_t)(result[r][l] >> 32);
        }
}

#endif
