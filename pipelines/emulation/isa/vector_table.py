"""What each plain vector instruction computes in one lane: one entry per opcode.

A line reads `NAME result(sources) expression`, the sources being called a, b, c in the order of the encoding:
  f32 f64 f16 u32 i32 u16 i16 u64 i64  a number of that type (f16 arrives as a float, and a float result is
  rounded)
  b32    the raw 32 bits (no float modifiers)            raw_f32 raw_f16  raw bits, float modifiers applied
  bit    this lane's bit of a mask (VCC, or src2 of the long form)
  vcc    this lane's bit of VCC, called e               mode   the MODE register
  TABLE SELECT  the truth table of BITOP3, the op_sel bits: constants of the instruction
  D      the old destination, called d                   K  the literal of FMAMK/FMAAK, called k
A second expression behind `;` is the carry or condition, one bit per lane, written to VCC or sdst.
`keep16` as result: a 16-bit value whose other half is kept.
The functions used are those of numbers.h.
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
V_MOV_B32 b32(b32) a
V_MOV_B64 u64(u64) a
V_NOT_B32 u32(u32) ~a
V_BFREV_B32 u32(u32) reverse_32(a)
V_FFBH_U32 i32(u32) first_high(a)
V_FFBL_B32 i32(u32) first_low(a)
V_FFBH_I32 i32(i32) sign_run(a)
V_CVT_I32_F64 i32(f64) to_i32(a)
V_CVT_U32_F64 u32(f64) to_u32(a)
V_CVT_F64_I32 f64(i32) (double)a
V_CVT_F64_U32 f64(u32) (double)a
V_CVT_F32_I32 f32(i32) (float)a
V_CVT_F32_U32 f32(u32) (float)a
V_CVT_U32_F32 u32(f32) to_u32(a)
V_CVT_I32_F32 i32(f32) to_i32(a)
V_CVT_RPI_I32_F32 i32(f32) to_i32(__builtin_floor((double)a + 0.5))
V_CVT_FLR_I32_F32 i32(f32) to_i32(__builtin_floorf(a))
V_CVT_OFF_F32_I4 f32(u32) (float)((int32_t)(a << 28) >> 28) * 0.0625f
V_CVT_F16_F32 f16(f32) a
V_CVT_F32_F16 f32(f16) a
V_CVT_F32_BF16 f32(u16) as_bf16(a)
V_CVT_F32_F64 f32(f64) (float)a
V_CVT_F64_F32 f64(f32) (double)a
V_CVT_F32_UBYTE0 f32(u32) (float)(a & 255)
V_CVT_F32_UBYTE1 f32(u32) (float)(a >> 8 & 255)
V_CVT_F32_UBYTE2 f32(u32) (float)(a >> 16 & 255)
V_CVT_F32_UBYTE3 f32(u32) (float)(a >> 24)
V_CVT_F16_U16 f16(u16) (float)a
V_CVT_F16_I16 f16(i16) (float)a
V_CVT_U16_F16 u16(f16) to_range(a, 0.0f, 65535.0f)
V_CVT_I16_F16 i16(f16) to_range(a, -32768.0f, 32767.0f)
V_CVT_NORM_I16_F16 i16(f16) to_range(__builtin_rintf(a * 32767.0f), -32767.0f, 32767.0f)
V_CVT_NORM_U16_F16 u16(f16) to_range(__builtin_rintf(a * 65535.0f), 0.0f, 65535.0f)
V_TRUNC_F64 f64(f64) __builtin_trunc(a)
V_CEIL_F64 f64(f64) __builtin_ceil(a)
V_RNDNE_F64 f64(f64) __builtin_rint(a)
V_FLOOR_F64 f64(f64) __builtin_floor(a)
V_FRACT_F64 f64(f64) fract_f64(a)
V_TRUNC_F32 f32(f32) __builtin_truncf(a)
V_CEIL_F32 f32(f32) __builtin_ceilf(a)
V_RNDNE_F32 f32(f32) __builtin_rintf(a)
V_FLOOR_F32 f32(f32) __builtin_floorf(a)
V_FRACT_F32 f32(f32) fract_f32(a)
V_TRUNC_F16 f16(f16) __builtin_truncf(a)
V_CEIL_F16 f16(f16) __builtin_ceilf(a)
V_RNDNE_F16 f16(f16) __builtin_rintf(a)
V_FLOOR_F16 f16(f16) __builtin_floorf(a)
V_FRACT_F16 f16(f16) a != a ? a : min_f32(a - __builtin_floorf(a), 0x1.ffcp-1f)
V_EXP_F32 f32(f32) exp2_f32(a)
V_LOG_F32 f32(f32) log2_f32(a)
V_RCP_F32 f32(f32) rcp_f32(a)
V_RCP_IFLAG_F32 f32(f32) rcp_f32(a)
V_RSQ_F32 f32(f32) rsq_f32(a)
V_SQRT_F32 f32(f32) sqrt_f32(a)
V_SIN_F32 f32(f32) sin_f32(a)
V_COS_F32 f32(f32) cos_f32(a)
V_RCP_F64 f64(f64) 1.0 / a
V_RSQ_F64 f64(f64) 1.0 / __builtin_sqrt(a)
V_SQRT_F64 f64(f64) __builtin_sqrt(a)
V_RCP_F16 f16(f16) 1.0f / a
V_SQRT_F16 f16(f16) __builtin_sqrtf(a)
V_RSQ_F16 f16(f16) 1.0f / __builtin_sqrtf(a)
V_LOG_F16 f16(f16) log2_any(a)
V_EXP_F16 f16(f16) exp2_f32(a)
V_SIN_F16 f16(f16) sin_f32(a)
V_COS_F16 f16(f16) cos_f32(a)
V_FREXP_EXP_I32_F64 i32(f64) frexp_exp_f64(a)
V_FREXP_MANT_F64 f64(f64) frexp_mant_f64(a)
V_FREXP_EXP_I32_F32 i32(f32) frexp_exp_f64(a)
V_FREXP_MANT_F32 f32(f32) (float)frexp_mant_f64(a)
V_FREXP_EXP_I16_F16 i16(f16) frexp_exp_f64(a)
V_FREXP_MANT_F16 f16(f16) (float)frexp_mant_f64(a)
V_SAT_PK_U8_I16 u32(u32) clamp_i64(low16(a), 0, 255) | clamp_i64(high16(a), 0, 255) << 8
V_PRNG_B32 u32(u32) a << 1 ^ (a >> 31 ? 197u : 0u)

V_CNDMASK_B32 b32(raw_f32,raw_f32,bit) c ? b : a
V_ADD_F32 f32(f32,f32) a + b
V_SUB_F32 f32(f32,f32) a - b
V_SUBREV_F32 f32(f32,f32) b - a
V_MUL_F32 f32(f32,f32) a * b
V_MUL_LEGACY_F32 f32(f32,f32) a == 0.0f || b == 0.0f ? 0.0f : a * b
V_FMAC_F32 f32(f32,f32,D) __builtin_fmaf(a, b, d)
V_FMAC_F64 f64(f64,f64,D) __builtin_fma(a, b, d)
V_FMAMK_F32 f32(f32,f32,K) __builtin_fmaf(a, k, b)
V_FMAAK_F32 f32(f32,f32,K) __builtin_fmaf(a, b, k)
V_FMA_F32 f32(f32,f32,f32) __builtin_fmaf(a, b, c)
V_FMA_F64 f64(f64,f64,f64) __builtin_fma(a, b, c)
V_MIN_F32 f32(f32,f32) min_f32(a, b)
V_MAX_F32 f32(f32,f32) max_f32(a, b)
V_MIN3_F32 f32(f32,f32,f32) min_f32(min_f32(a, b), c)
V_MAX3_F32 f32(f32,f32,f32) max_f32(max_f32(a, b), c)
V_MED3_F32 f32(f32,f32,f32) med3_f32(a, b, c)
V_MINIMUM3_F32 f32(f32,f32,f32) minimum_f32(minimum_f32(a, b), c)
V_MAXIMUM3_F32 f32(f32,f32,f32) maximum_f32(maximum_f32(a, b), c)
V_ADD_F64 f64(f64,f64) a + b
V_MUL_F64 f64(f64,f64) a * b
V_MIN_F64 f64(f64,f64) min_f64(a, b)
V_MAX_F64 f64(f64,f64) max_f64(a, b)
V_LDEXP_F64 f64(f64,i32) ldexp_f64(a, b)
V_LDEXP_F32 f32(f32,i32) ldexp_f32(a, b)
V_LDEXP_F16 f16(f16,i16) ldexp_f32(a, b)
V_ADD_F16 f16(f16,f16) a + b
V_SUB_F16 f16(f16,f16) a - b
V_SUBREV_F16 f16(f16,f16) b - a
V_MUL_F16 f16(f16,f16) a * b
V_MIN_F16 f16(f16,f16) min_f32(a, b)
V_MAX_F16 f16(f16,f16) max_f32(a, b)
V_MIN3_F16 keep16:f16(f16,f16,f16) min_f32(min_f32(a, b), c)
V_MAX3_F16 keep16:f16(f16,f16,f16) max_f32(max_f32(a, b), c)
V_MED3_F16 keep16:f16(f16,f16,f16) med3_f32(a, b, c)
V_FMA_F16 keep16:f16(f16,f16,f16) fma_f16(a, b, c)
V_FMA_LEGACY_F16 f16(f16,f16,f16) fma_f16(a, b, c)
V_PACK_B32_F16 u32(raw_f16,raw_f16) a | b << 16
V_ADD_U32 u32(u32,u32) a + b
V_SUB_U32 u32(u32,u32) a - b
V_SUBREV_U32 u32(u32,u32) b - a
V_ADD_I32 i32(i32,i32) a + b
V_SUB_I32 i32(i32,i32) a - b
V_ADD_U16 u16(u16,u16) a + b
V_SUB_U16 u16(u16,u16) a - b
V_SUBREV_U16 u16(u16,u16) b - a
V_ADD_I16 keep16:i16(i16,i16) a + b
V_SUB_I16 keep16:i16(i16,i16) a - b
V_MUL_LO_U16 u16(u16,u16) (uint32_t)a * b
V_LSHLREV_B16 u16(u16,u16) b << (a & 15)
V_LSHRREV_B16 u16(u16,u16) b >> (a & 15)
V_ASHRREV_I16 i16(u16,i16) b >> (a & 15)
V_MAX_U16 u16(u16,u16) a > b ? a : b
V_MIN_U16 u16(u16,u16) a < b ? a : b
V_MAX_I16 i16(i16,i16) a > b ? a : b
V_MIN_I16 i16(i16,i16) a < b ? a : b
V_MIN3_I16 keep16:i16(i16,i16,i16) min_i32(min_i32(a, b), c)
V_MAX3_I16 keep16:i16(i16,i16,i16) max_i32(max_i32(a, b), c)
V_MED3_I16 keep16:i16(i16,i16,i16) med3_i32(a, b, c)
V_MIN3_U16 keep16:u16(u16,u16,u16) min_i32(min_i32(a, b), c)
V_MAX3_U16 keep16:u16(u16,u16,u16) max_i32(max_i32(a, b), c)
V_MED3_U16 keep16:u16(u16,u16,u16) med3_i32(a, b, c)
V_MAD_U16 keep16:u16(u16,u16,u16) (uint32_t)a * b + c
V_MAD_I16 keep16:i16(i16,i16,i16) (int32_t)a * b + c
V_MAD_LEGACY_U16 u16(u16,u16,u16) (uint32_t)a * b + c
V_MAD_LEGACY_I16 i16(i16,i16,i16) (int32_t)a * b + c
V_MUL_I32_I24 i32(i32,i32) (int32_t)((uint32_t)(a << 8 >> 8) * (uint32_t)(b << 8 >> 8))
V_MUL_HI_I32_I24 i32(i32,i32) (int64_t)(a << 8 >> 8) * (b << 8 >> 8) >> 32
V_MUL_U32_U24 u32(u32,u32) (a & 0xffffff) * (b & 0xffffff)
V_MUL_HI_U32_U24 u32(u32,u32) (uint64_t)(a & 0xffffff) * (b & 0xffffff) >> 32
V_MAD_I32_I24 i32(i32,i32,u32) (uint32_t)(a << 8 >> 8) * (uint32_t)(b << 8 >> 8) + c
V_MAD_U32_U24 u32(u32,u32,u32) (a & 0xffffff) * (b & 0xffffff) + c
V_MAD_U32_U16 u32(u16,u16,u32) (uint32_t)a * b + c
V_MAD_I32_I16 i32(i16,i16,u32) (uint32_t)((int32_t)a * b) + c
V_MUL_LO_U32 u32(u32,u32) a * b
V_MUL_HI_U32 u32(u32,u32) (uint64_t)a * b >> 32
V_MUL_HI_I32 i32(i32,i32) (int64_t)a * b >> 32
V_MAD_U64_U32 u64(u32,u32,u64) (uint64_t)a * b + c ; __builtin_add_overflow((uint64_t)a * b, c,
  &(uint64_t){0})
V_MAD_I64_I32 i64(i32,i32,i64) (uint64_t)((int64_t)a * b) + (uint64_t)c ; __builtin_add_overflow((int64_t)a *
  b, c, &(int64_t){0})
V_MIN_I32 i32(i32,i32) min_i32(a, b)
V_MAX_I32 i32(i32,i32) max_i32(a, b)
V_MIN_U32 u32(u32,u32) min_u32(a, b)
V_MAX_U32 u32(u32,u32) max_u32(a, b)
V_MIN3_I32 i32(i32,i32,i32) min_i32(min_i32(a, b), c)
V_MAX3_I32 i32(i32,i32,i32) max_i32(max_i32(a, b), c)
V_MED3_I32 i32(i32,i32,i32) med3_i32(a, b, c)
V_MIN3_U32 u32(u32,u32,u32) min_u32(min_u32(a, b), c)
V_MAX3_U32 u32(u32,u32,u32) max_u32(max_u32(a, b), c)
V_MED3_U32 u32(u32,u32,u32) med3_u32(a, b, c)
V_LSHRREV_B32 u32(u32,u32) b >> (a & 31)
V_ASHRREV_I32 i32(u32,i32) b >> (a & 31)
V_LSHLREV_B32 u32(u32,u32) b << (a & 31)
V_LSHLREV_B64 u64(u32,u64) b << (a & 63)
V_LSHRREV_B64 u64(u32,u64) b >> (a & 63)
V_ASHRREV_I64 i64(u32,i64) b >> (a & 63)
V_AND_B32 u32(u32,u32) a & b
V_OR_B32 u32(u32,u32) a | b
V_XOR_B32 u32(u32,u32) a ^ b
V_XNOR_B32 u32(u32,u32) ~(a ^ b)
V_BFE_U32 u32(u32,u32,u32) extract_u32(a, b & 31, c & 31)
V_BFE_I32 i32(i32,u32,u32) extract_i32(a, b & 31, c & 31)
V_BFI_B32 u32(u32,u32,u32) (a & b) | (~a & c)
V_BFM_B32 u32(u32,u32) ((1u << (a & 31)) - 1) << (b & 31)
V_ALIGNBIT_B32 u32(u32,u32,u32) ((uint64_t)a << 32 | b) >> (c & 31)
V_ALIGNBYTE_B32 u32(u32,u32,u32) ((uint64_t)a << 32 | b) >> (c & 3) * 8
V_PERM_B32 u32(u32,u32,u32) permute_bytes((uint64_t)a << 32 | b, c)
V_XAD_U32 u32(u32,u32,u32) (a ^ b) + c
V_LSHL_ADD_U32 u32(u32,u32,u32) (a << (b & 31)) + c
V_ADD_LSHL_U32 u32(u32,u32,u32) (a + b) << (c & 31)
V_ADD3_U32 u32(u32,u32,u32) a + b + c
V_LSHL_OR_B32 u32(u32,u32,u32) a << (b & 31) | c
V_AND_OR_B32 u32(u32,u32,u32) (a & b) | c
V_OR3_B32 u32(u32,u32,u32) a | b | c
V_LSHL_ADD_U64 u64(u64,u32,u64) (a << (b & 7)) + c
V_BCNT_U32_B32 u32(u32,u32) (uint32_t)__builtin_popcount(a) + b
V_MBCNT_LO_U32_B32 u32(u32,u32) (uint32_t)__builtin_popcount(a & (uint32_t)(((uint64_t)1 << l) - 1)) + b
V_MBCNT_HI_U32_B32 u32(u32,u32) (uint32_t)__builtin_popcount(a & (uint32_t)((((uint64_t)1 << l) - 1) >> 32))
  + b
V_SAD_U8 u32(u32,u32,u32) sad_u8(a, b) + c
V_SAD_HI_U8 u32(u32,u32,u32) (sad_u8(a, b) << 16) + c
V_SAD_U16 u32(u32,u32,u32) difference(a & 65535, b & 65535) + difference(a >> 16, b >> 16) + c
V_SAD_U32 u32(u32,u32,u32) difference(a, b) + c
V_LERP_U8 u32(u32,u32,u32) lerp_u8(a, b, c)
V_CVT_PK_U8_F32 u32(f32,u32,u32) (c & ~(255u << (b & 3) * 8)) | (uint32_t)to_range(a, 0.0f, 255.0f) << (b &
  3) * 8
V_ASHR_PK_I8_I32 keep16:u16(i32,i32,u32) (clamp_i64(a >> (c & 31), -128, 127) & 255) | (clamp_i64(b >> (c &
  31), -128, 127) & 255) << 8
V_ASHR_PK_U8_I32 keep16:u16(i32,i32,u32) clamp_i64(a >> (c & 31), 0, 255) | clamp_i64(b >> (c & 31), 0, 255)
  << 8
V_CVT_PK_F16_F32 u32(f32,f32) bits_f16(a) | bits_f16(b) << 16
V_CVT_PK_BF16_F32 u32(f32,f32) bits_bf16(a) | bits_bf16(b) << 16
V_CVT_PKRTZ_F16_F32 u32(f32,f32) to_f16_toward_zero(a) | to_f16_toward_zero(b) << 16
V_CVT_PK_U16_U32 u32(u32,u32) min_u32(a, 65535) | min_u32(b, 65535) << 16
V_CVT_PK_I16_I32 u32(i32,i32) (clamp_i64(a, -32768, 32767) & 65535) | clamp_i64(b, -32768, 32767) << 16
V_CVT_PKNORM_I16_F32 u32(f32,f32) (uint16_t)to_range(__builtin_rintf(a * 32767.0f), -32767.0f, 32767.0f) |
  (uint32_t)to_range(__builtin_rintf(b * 32767.0f), -32767.0f, 32767.0f) << 16
V_CVT_PKNORM_U16_F32 u32(f32,f32) (uint32_t)to_range(__builtin_rintf(a * 65535.0f), 0.0f, 65535.0f) |
  (uint32_t)to_range(__builtin_rintf(b * 65535.0f), 0.0f, 65535.0f) << 16
V_ADD_CO_U32 u32(u32,u32) a + b ; (uint64_t)a + b >> 32
V_SUB_CO_U32 u32(u32,u32) a - b ; b > a
V_SUBREV_CO_U32 u32(u32,u32) b - a ; a > b
V_ADDC_CO_U32 u32(u32,u32,bit) a + b + c ; (uint64_t)a + b + c >> 32
V_SUBB_CO_U32 u32(u32,u32,bit) a - b - c ; (uint64_t)b + c > a
V_SUBBREV_CO_U32 u32(u32,u32,bit) b - a - c ; (uint64_t)a + c > b
V_DIV_FIXUP_F32 f32(f32,f32,f32) div_fixup_f32(a, b, c)
V_DIV_FIXUP_F64 f64(f64,f64,f64) div_fixup_f64(a, b, c)
V_DIV_FIXUP_F16 keep16:f16(f16,f16,f16) div_fixup_f16(a, b, c)
V_DIV_FMAS_F32 f32(f32,f32,f32,vcc) div_fmas_f32(a, b, c, e)
V_DIV_FMAS_F64 f64(f64,f64,f64,vcc) div_fmas_f64(a, b, c, e)
V_DIV_SCALE_F32 f32(f32,f32,f32) div_scale_f32(a, b, c).value ; div_scale_f32(a, b, c).scaled
V_DIV_SCALE_F64 f64(f64,f64,f64) div_scale_f64(a, b, c).value ; div_scale_f64(a, b, c).scaled
V_DOT2C_F32_F16 f32(u32,u32,D) dot2_f16(a, b, d)
V_DOT2C_F32_BF16 f32(u32,u32,D) dot2_bf16(a, b, d)
V_DOT2C_I32_I16 i32(u32,u32,D) d + low16(a) * low16(b) + high16(a) * high16(b)
V_DOT4C_I32_I8 i32(u32,u32,D) d + dot4_i8(a, b)
V_DOT8C_I32_I4 i32(u32,u32,D) d + dot8_i4(a, b)
V_CVT_F32_FP8 f32(u32) FROM_FP8(a & 255)
V_CVT_F32_BF8 f32(u32) FROM_BF8(a & 255)
V_CVT_PK_F32_FP8 u64(u32) pair_f32(FROM_FP8(a & 255), FROM_FP8(a >> 8 & 255))
V_CVT_PK_F32_BF8 u64(u32) pair_f32(FROM_BF8(a & 255), FROM_BF8(a >> 8 & 255))
V_CVT_PK_FP8_F32 keep16:u16(f32,f32,mode) TO_FP8(a, c & FP16_OVFL) | TO_FP8(b, c & FP16_OVFL) << 8
V_CVT_PK_BF8_F32 keep16:u16(f32,f32,mode) TO_BF8(a, c & FP16_OVFL) | TO_BF8(b, c & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_FP8_F32 keep16:u16(f32,f32,u32,mode) TO_FP8(unscale(a, c), e & FP16_OVFL) |
  TO_FP8(unscale(b, c), e & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_BF8_F32 keep16:u16(f32,f32,u32,mode) TO_BF8(unscale(a, c), e & FP16_OVFL) |
  TO_BF8(unscale(b, c), e & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_FP8_F16 keep16:u16(u32,u32,mode) TO_FP8(unscale(as_f16(a), b), c & FP16_OVFL) |
  TO_FP8(unscale(as_f16(a >> 16), b), c & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_BF8_F16 keep16:u16(u32,u32,mode) TO_BF8(unscale(as_f16(a), b), c & FP16_OVFL) |
  TO_BF8(unscale(as_f16(a >> 16), b), c & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_FP8_BF16 keep16:u16(u32,u32,mode) TO_FP8(unscale(as_bf16(a & 65535), b), c & FP16_OVFL) |
  TO_FP8(unscale(as_bf16(a >> 16), b), c & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_BF8_BF16 keep16:u16(u32,u32,mode) TO_BF8(unscale(as_bf16(a & 65535), b), c & FP16_OVFL) |
  TO_BF8(unscale(as_bf16(a >> 16), b), c & FP16_OVFL) << 8
V_CVT_SCALEF32_PK_F32_FP8 u64(u16,u32) pair_f32(rescale(FROM_FP8(a & 255), b), rescale(FROM_FP8(a >> 8), b))
V_CVT_SCALEF32_PK_F32_BF8 u64(u16,u32) pair_f32(rescale(FROM_BF8(a & 255), b), rescale(FROM_BF8(a >> 8), b))
V_CVT_SCALEF32_PK_F16_FP8 u32(u16,u32) bits_f16(rescale(FROM_FP8(a & 255), b)) | bits_f16(rescale(FROM_FP8(a
  >> 8), b)) << 16
V_CVT_SCALEF32_PK_BF16_FP8 u32(u16,u32) bits_bf16(rescale(FROM_FP8(a & 255), b)) |
  bits_bf16(rescale(FROM_FP8(a >> 8), b)) << 16
V_CVT_SCALEF32_PK_F16_BF8 u32(u16,u32) bits_f16(rescale(FROM_BF8(a & 255), b)) | bits_f16(rescale(FROM_BF8(a
  >> 8), b)) << 16
V_CVT_SCALEF32_PK_BF16_BF8 u32(u16,u32) bits_bf16(rescale(FROM_BF8(a & 255), b)) |
  bits_bf16(rescale(FROM_BF8(a >> 8), b)) << 16
V_CVT_SCALEF32_F16_FP8 keep16:f16(u32,u32,SELECT) rescale(FROM_FP8(a >> 8 * (SELECT & 3) & 255), b)
V_CVT_SCALEF32_F16_BF8 keep16:f16(u32,u32,SELECT) rescale(FROM_BF8(a >> 8 * (SELECT & 3) & 255), b)
V_CVT_SCALEF32_F32_FP8 f32(u32,u32,SELECT) rescale(FROM_FP8(a >> 8 * (SELECT & 3) & 255), b)
V_CVT_SCALEF32_F32_BF8 f32(u32,u32,SELECT) rescale(FROM_BF8(a >> 8 * (SELECT & 3) & 255), b)
V_CVT_SCALEF32_PK_F32_FP4 u64(u32,u32,SELECT) pair_f32(rescale(ocp_e2m1(a >> 8 * (SELECT & 3) & 15), b),
  rescale(ocp_e2m1(a >> (8 * (SELECT & 3) + 4) & 15), b))
V_CVT_SCALEF32_PK_F16_FP4 u32(u32,u32,SELECT) bits_f16(rescale(ocp_e2m1(a >> 8 * (SELECT & 3) & 15), b)) |
  bits_f16(rescale(ocp_e2m1(a >> (8 * (SELECT & 3) + 4) & 15), b)) << 16
V_CVT_SCALEF32_PK_BF16_FP4 u32(u32,u32,SELECT) bits_bf16(rescale(ocp_e2m1(a >> 8 * (SELECT & 3) & 15), b)) |
  bits_bf16(rescale(ocp_e2m1(a >> (8 * (SELECT & 3) + 4) & 15), b)) << 16
V_CVT_SCALEF32_PK_FP4_F32 u32(f32,f32,u32,SELECT,D) replace_byte(d, SELECT >> 2, to_ocp_e2m1(unscale(a, c)) |
  to_ocp_e2m1(unscale(b, c)) << 4)
V_CVT_SCALEF32_PK_FP4_F16 u32(u32,u32,SELECT,D) replace_byte(d, SELECT >> 2, to_ocp_e2m1(unscale(as_f16(a), b))
  | to_ocp_e2m1(unscale(as_f16(a >> 16), b)) << 4)
V_CVT_SCALEF32_PK_FP4_BF16 u32(u32,u32,SELECT,D) replace_byte(d, SELECT >> 2, to_ocp_e2m1(unscale(as_bf16(a &
  65535), b)) | to_ocp_e2m1(unscale(as_bf16(a >> 16), b)) << 4)
V_BITOP3_B32 u32(u32,u32,u32,TABLE) bitop3(a, b, c, TABLE)
V_BITOP3_B16 keep16:u16(u16,u16,u16,TABLE) bitop3(a, b, c, TABLE)
"""

_CONDITIONS = {
    "F": "0",
    "LT": "a < b",
    "EQ": "a == b",
    "LE": "a <= b",
    "GT": "a > b",
    "LG": "(a < b) | (a > b)",
    "NE": "a != b",
    "GE": "a >= b",
    "O": "(a == a) & (b == b)",
    "U": "(a != a) | (b != b)",
    "NGE": "!(a >= b)",
    "NLG": "!((a < b) | (a > b))",
    "NGT": "!(a > b)",
    "NLE": "!(a <= b)",
    "NEQ": "!(a == b)",
    "NLT": "!(a < b)",
    "TRU": "1",
    "T": "1",
}


@dataclass(frozen=True)
class LaneOperation:
    """One opcode: result type, source types, expression, and the carry expression or None.

    `keeps_half` is true where the 16 bits that are not written survive."""

    name: str
    result: str
    sources: tuple[str, ...]
    expression: str
    carry: str | None = None
    keeps_half: bool = False


def _parse(table: str) -> dict[str, LaneOperation]:
    operations = {}
    for line in table.strip().replace("\n  ", " ").splitlines():
        if not line:
            continue
        name, signature, expression = line.split(" ", 2)
        result, _, sources = signature.rstrip(")").partition("(")
        expression, _, carry = expression.partition(" ; ")
        keeps_half = result.startswith("keep16:")
        operations[name] = LaneOperation(
            name,
            result.removeprefix("keep16:"),
            tuple(sources.split(",")),
            expression,
            carry or None,
            keeps_half,
        )
    return operations


def _comparisons() -> dict[str, LaneOperation]:
    operations = {}
    for kind in ("F32", "F64", "F16", "I32", "U32", "I64", "U64", "I16", "U16"):
        lane_type = kind.lower()
        for condition, expression in _CONDITIONS.items():
            name = f"V_CMP_{condition}_{kind}"
            operations[name] = LaneOperation(name, "mask", (lane_type, lane_type), expression)
    for kind, function, source in (
        ("F32", "class_f32", "raw_f32"),
        ("F64", "class_f64", "f64"),
        ("F16", "class_f16", "raw_f16"),
    ):
        name = f"V_CMP_CLASS_{kind}"
        operations[name] = LaneOperation(name, "mask", (source, "u32"), f"{function}(a, b)")
    return operations


LANE_OPERATIONS = {**_parse(_TABLE), **_comparisons()}
