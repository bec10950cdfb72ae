"""What each plain scalar instruction computes: one entry per opcode.

A line reads `NAME result(sources) expression`; sources a, b are u32 i32 u64 i64, or D for the old
destination (d);
`scc` is the condition bit's old value.  A second expression behind `;` is the new SCC, where `r` is the
result;
`nz` stands for r != 0.  Result `-` writes no register.
"""

from __future__ import annotations

from dataclasses import dataclass

_TABLE = """
S_MOV_B32 u32(u32) a
S_MOV_B64 u64(u64) a
S_CMOV_B32 u32(u32,D) scc ? a : d
S_CMOV_B64 u64(u64,D) scc ? a : d
S_NOT_B32 u32(u32) ~a ; nz
S_NOT_B64 u64(u64) ~a ; nz
S_WQM_B32 u32(u32) whole_quads(a) ; nz
S_WQM_B64 u64(u64) whole_quads(a) ; nz
S_BREV_B32 u32(u32) __builtin_bitreverse32(a)
S_BREV_B64 u64(u64) __builtin_bitreverse64(a)
S_BCNT0_I32_B32 u32(u32) __builtin_popcount(~a) ; nz
S_BCNT0_I32_B64 u32(u64) __builtin_popcountll(~a) ; nz
S_BCNT1_I32_B32 u32(u32) __builtin_popcount(a) ; nz
S_BCNT1_I32_B64 u32(u64) __builtin_popcountll(a) ; nz
S_FF0_I32_B32 u32(u32) first_low(~a)
S_FF0_I32_B64 u32(u64) first_low_64(~a)
S_FF1_I32_B32 u32(u32) first_low(a)
S_FF1_I32_B64 u32(u64) first_low_64(a)
S_FLBIT_I32_B32 u32(u32) first_high(a)
S_FLBIT_I32_B64 u32(u64) first_high_64(a)
S_FLBIT_I32 u32(i32) sign_run(a)
S_FLBIT_I32_I64 u32(i64) sign_run_64(a)
S_SEXT_I32_I8 u32(u32) (int8_t)a
S_SEXT_I32_I16 u32(u32) (int16_t)a
S_BITSET0_B32 u32(u32,D) d & ~(1u << (a & 31))
S_BITSET0_B64 u64(u32,D) d & ~((uint64_t)1 << (a & 63))
S_BITSET1_B32 u32(u32,D) d | 1u << (a & 31)
S_BITSET1_B64 u64(u32,D) d | (uint64_t)1 << (a & 63)
S_ABS_I32 u32(i32) a < 0 ? -(uint32_t)a : (uint32_t)a ; nz
S_BITREPLICATE_B64_B32 u64(u32) replicate_bits(a)
S_QUADMASK_B32 u32(u32) quad_mask(a) ; nz
S_QUADMASK_B64 u64(u64) quad_mask(a) ; nz
S_ADD_U32 u32(u32,u32) a + b ; r < a
S_SUB_U32 u32(u32,u32) a - b ; b > a
S_ADD_I32 i32(i32,i32) (uint32_t)a + (uint32_t)b ; ((a ^ r) & (b ^ r)) < 0
S_SUB_I32 i32(i32,i32) (uint32_t)a - (uint32_t)b ; ((a ^ b) & (a ^ r)) < 0
S_ADDC_U32 u32(u32,u32) a + b + scc ; (uint64_t)a + b + scc >> 32
S_SUBB_U32 u32(u32,u32) a - b - scc ; (uint64_t)b + scc > a
S_MIN_I32 i32(i32,i32) a < b ? a : b ; a < b
S_MIN_U32 u32(u32,u32) a < b ? a : b ; a < b
S_MAX_I32 i32(i32,i32) a >= b ? a : b ; a >= b
S_MAX_U32 u32(u32,u32) a >= b ? a : b ; a >= b
S_CSELECT_B32 u32(u32,u32) scc ? a : b
S_CSELECT_B64 u64(u64,u64) scc ? a : b
S_AND_B32 u32(u32,u32) a & b ; nz
S_AND_B64 u64(u64,u64) a & b ; nz
S_OR_B32 u32(u32,u32) a | b ; nz
S_OR_B64 u64(u64,u64) a | b ; nz
S_XOR_B32 u32(u32,u32) a ^ b ; nz
S_XOR_B64 u64(u64,u64) a ^ b ; nz
S_ANDN2_B32 u32(u32,u32) a & ~b ; nz
S_ANDN2_B64 u64(u64,u64) a & ~b ; nz
S_ORN2_B32 u32(u32,u32) a | ~b ; nz
S_ORN2_B64 u64(u64,u64) a | ~b ; nz
S_NAND_B32 u32(u32,u32) ~(a & b) ; nz
S_NAND_B64 u64(u64,u64) ~(a & b) ; nz
S_NOR_B32 u32(u32,u32) ~(a | b) ; nz
S_NOR_B64 u64(u64,u64) ~(a | b) ; nz
S_XNOR_B32 u32(u32,u32) ~(a ^ b) ; nz
S_XNOR_B64 u64(u64,u64) ~(a ^ b) ; nz
S_LSHL_B32 u32(u32,u32) a << (b & 31) ; nz
S_LSHL_B64 u64(u64,u32) a << (b & 63) ; nz
S_LSHR_B32 u32(u32,u32) a >> (b & 31) ; nz
S_LSHR_B64 u64(u64,u32) a >> (b & 63) ; nz
S_ASHR_I32 i32(i32,u32) a >> (b & 31) ; nz
S_ASHR_I64 i64(i64,u32) a >> (b & 63) ; nz
S_BFM_B32 u32(u32,u32) ((1u << (a & 31)) - 1) << (b & 31)
S_BFM_B64 u64(u32,u32) (((uint64_t)1 << (a & 63)) - 1) << (b & 63)
S_MUL_I32 u32(u32,u32) a * b
S_MUL_HI_U32 u32(u32,u32) (uint64_t)a * b >> 32
S_MUL_HI_I32 i32(i32,i32) (int64_t)a * b >> 32
S_BFE_U32 u32(u32,u32) extract_u32(a, b & 31, b >> 16 & 127) ; nz
S_BFE_I32 i32(i32,u32) extract_i32(a, b & 31, min_u32(b >> 16 & 127, 32)) ; nz
S_BFE_U64 u64(u64,u32) extract_u64(a, b & 63, b >> 16 & 127) ; nz
S_BFE_I64 i64(i64,u32) extract_i64(a, b & 63, b >> 16 & 127) ; nz
S_ABSDIFF_I32 u32(i32,i32) (int32_t)((uint32_t)a - (uint32_t)b) < 0 ? (uint32_t)b - (uint32_t)a : (uint32_t)a
  - (uint32_t)b ; nz
S_LSHL1_ADD_U32 u32(u32,u32) (a << 1) + b ; ((uint64_t)a << 1) + b >> 32 != 0
S_LSHL2_ADD_U32 u32(u32,u32) (a << 2) + b ; ((uint64_t)a << 2) + b >> 32 != 0
S_LSHL3_ADD_U32 u32(u32,u32) (a << 3) + b ; ((uint64_t)a << 3) + b >> 32 != 0
S_LSHL4_ADD_U32 u32(u32,u32) (a << 4) + b ; ((uint64_t)a << 4) + b >> 32 != 0
S_PACK_LL_B32_B16 u32(u32,u32) (a & 0xffff) | b << 16
S_PACK_LH_B32_B16 u32(u32,u32) (a & 0xffff) | (b & 0xffff0000u)
S_PACK_HH_B32_B16 u32(u32,u32) a >> 16 | (b & 0xffff0000u)
S_CMP_EQ_I32 -(i32,i32) 0 ; a == b
S_CMP_LG_I32 -(i32,i32) 0 ; a != b
S_CMP_GT_I32 -(i32,i32) 0 ; a > b
S_CMP_GE_I32 -(i32,i32) 0 ; a >= b
S_CMP_LT_I32 -(i32,i32) 0 ; a < b
S_CMP_LE_I32 -(i32,i32) 0 ; a <= b
S_CMP_EQ_U32 -(u32,u32) 0 ; a == b
S_CMP_LG_U32 -(u32,u32) 0 ; a != b
S_CMP_GT_U32 -(u32,u32) 0 ; a > b
S_CMP_GE_U32 -(u32,u32) 0 ; a >= b
S_CMP_LT_U32 -(u32,u32) 0 ; a < b
S_CMP_LE_U32 -(u32,u32) 0 ; a <= b
S_CMP_EQ_U64 -(u64,u64) 0 ; a == b
S_CMP_LG_U64 -(u64,u64) 0 ; a != b
S_BITCMP0_B32 -(u32,u32) 0 ; !(a >> (b & 31) & 1)
S_BITCMP1_B32 -(u32,u32) 0 ; a >> (b & 31) & 1
S_BITCMP0_B64 -(u64,u32) 0 ; !(a >> (b & 63) & 1)
S_BITCMP1_B64 -(u64,u32) 0 ; a >> (b & 63) & 1
S_MOVK_I32 u32(K) a
S_CMOVK_I32 u32(K,D) scc ? a : d
S_CMPK_EQ_I32 -(K,D) 0 ; (int32_t)d == (int32_t)a
S_CMPK_LG_I32 -(K,D) 0 ; (int32_t)d != (int32_t)a
S_CMPK_GT_I32 -(K,D) 0 ; (int32_t)d > (int32_t)a
S_CMPK_GE_I32 -(K,D) 0 ; (int32_t)d >= (int32_t)a
S_CMPK_LT_I32 -(K,D) 0 ; (int32_t)d < (int32_t)a
S_CMPK_LE_I32 -(K,D) 0 ; (int32_t)d <= (int32_t)a
S_CMPK_EQ_U32 -(K,D) 0 ; d == (a & 0xffff)
S_CMPK_LG_U32 -(K,D) 0 ; d != (a & 0xffff)
S_CMPK_GT_U32 -(K,D) 0 ; d > (a & 0xffff)
S_CMPK_GE_U32 -(K,D) 0 ; d >= (a & 0xffff)
S_CMPK_LT_U32 -(K,D) 0 ; d < (a & 0xffff)
S_CMPK_LE_U32 -(K,D) 0 ; d <= (a & 0xffff)
S_ADDK_I32 u32(K,D) d + a ; (int32_t)((d ^ r) & (a ^ r)) < 0
S_MULK_I32 u32(K,D) d * a
"""

# EXEC is combined with the source; the destination receives the old EXEC (SAVEEXEC) or the new one (WREXEC).
EXEC_OPERATIONS = {
    "S_AND_SAVEEXEC_B64": "a & exec",
    "S_OR_SAVEEXEC_B64": "a | exec",
    "S_XOR_SAVEEXEC_B64": "a ^ exec",
    "S_ANDN2_SAVEEXEC_B64": "a & ~exec",
    "S_ORN2_SAVEEXEC_B64": "a | ~exec",
    "S_NAND_SAVEEXEC_B64": "~(a & exec)",
    "S_NOR_SAVEEXEC_B64": "~(a | exec)",
    "S_XNOR_SAVEEXEC_B64": "~(a ^ exec)",
    "S_ANDN1_SAVEEXEC_B64": "~a & exec",
    "S_ORN1_SAVEEXEC_B64": "~a | exec",
    "S_ANDN1_WREXEC_B64": "~a & exec",
    "S_ANDN2_WREXEC_B64": "a & ~exec",
}


@dataclass(frozen=True)
class ScalarOperation:
    """One opcode: result type ("-" for none), source types, expression, SCC expression or None.

    Source K is the sign-extended 16-bit immediate, called a."""

    name: str
    result: str
    sources: tuple[str, ...]
    expression: str
    condition: str | None


def _parse(table: str) -> dict[str, ScalarOperation]:
    operations = {}
    for line in table.strip().replace("\n  ", " ").splitlines():
        name, signature, expression = line.split(" ", 2)
        result, _, sources = signature.rstrip(")").partition("(")
        expression, _, condition = expression.partition(" ; ")
        condition = "r != 0" if condition == "nz" else condition
        operations[name] = ScalarOperation(name, result, tuple(sources.split(",")), expression, condition or None)
    return operations


SCALAR_OPERATIONS = _parse(_TABLE)
