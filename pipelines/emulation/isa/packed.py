"""VOP3P: packed 16-bit and packed FP32 operations, mixed precision and dot products."""

from __future__ import annotations

from .context import FIRST_VGPR, Access, Context
from .lane_helpers import Modifiers, Source, apply_output_modifiers, lane_value

# Per half: type, number of sources, expression.
_PACKED_16 = {
    "V_PK_MAD_I16": ("i16", 3, "(int32_t)a * b + c"),
    "V_PK_MUL_LO_U16": ("u16", 2, "(uint32_t)a * b"),
    "V_PK_ADD_I16": ("i16", 2, "a + b"),
    "V_PK_SUB_I16": ("i16", 2, "a - b"),
    "V_PK_LSHLREV_B16": ("u16", 2, "b << (a & 15)"),
    "V_PK_LSHRREV_B16": ("u16", 2, "b >> (a & 15)"),
    "V_PK_ASHRREV_I16": ("i16", 2, "b >> (a & 15)"),
    "V_PK_MAX_I16": ("i16", 2, "a >= b ? a : b"),
    "V_PK_MIN_I16": ("i16", 2, "a < b ? a : b"),
    "V_PK_MAD_U16": ("u16", 3, "(uint32_t)a * b + c"),
    "V_PK_ADD_U16": ("u16", 2, "a + b"),
    "V_PK_SUB_U16": ("u16", 2, "a - b"),
    "V_PK_MAX_U16": ("u16", 2, "a >= b ? a : b"),
    "V_PK_MIN_U16": ("u16", 2, "a < b ? a : b"),
    "V_PK_FMA_F16": ("f16", 3, "fma_f16(a, b, c)"),
    "V_PK_ADD_F16": ("f16", 2, "a + b"),
    "V_PK_MUL_F16": ("f16", 2, "a * b"),
    "V_PK_MIN_F16": ("f16", 2, "min_f32(a, b)"),
    "V_PK_MAX_F16": ("f16", 2, "max_f32(a, b)"),
    "V_PK_MINIMUM3_F16": ("f16", 3, "minimum_f32(minimum_f32(a, b), c)"),
    "V_PK_MAXIMUM3_F16": ("f16", 3, "maximum_f32(maximum_f32(a, b), c)"),
}
_PACKED_F32 = {
    "V_PK_FMA_F32": (3, "__builtin_fmaf(a, b, c)"),
    "V_PK_MUL_F32": (2, "a * b"),
    "V_PK_ADD_F32": (2, "a + b"),
}
# Result type and expression over the raw words a, b and the accumulator c.
_DOTS = {
    "V_DOT2_F32_F16": ("f32", "dot2_f16(a, b, c)"),
    "V_DOT2_F32_BF16": ("f32", "dot2_bf16(a, b, c)"),
    "V_DOT2_I32_I16": ("i32", "c + low16(a) * low16(b) + high16(a) * high16(b)"),
    "V_DOT2_U32_U16": ("u32", "c + (a & 0xffff) * (b & 0xffff) + (a >> 16) * (b >> 16)"),
    "V_DOT4_I32_I8": ("i32", "c + dot4_i8(a, b)"),
    "V_DOT4_U32_U8": ("u32", "c + dot4_u8(a, b)"),
    "V_DOT8_I32_I4": ("i32", "c + dot8_i4(a, b)"),
    "V_DOT8_U32_U4": ("u32", "c + dot8_u4(a, b)"),
}
_C_TYPES = {"f16": "float", "u16": "uint16_t", "i16": "int16_t"}


def _operands(context: Context, count: int, kind: str, wide: bool = False) -> list[Source]:
    decoded = context.instruction.decoded
    sources = []
    for name in ("src0", "src1", "src2")[:count]:
        code = getattr(decoded, name).offset
        if code >= FIRST_VGPR:
            sources.append(Source(context.vector_register(code, 2 if wide else 1), True))
        elif wide and code < 128:
            sources.append(Source(context.scalar(code, "u64"), False))
        elif wide:
            value = context.constant(code, "f32")
            sources.append(Source(f"{value << 32 | value:#x}ull", False))
        else:
            sources.append(Source(context.scalar(code, kind if code >= 128 else "u32"), False))
    return sources


def _parameters(sources: list[Source], wide: bool = False) -> str:
    scalar = "uint64_t" if wide else "uint32_t"
    listed = [f"const uint32_t *s{i}" if s.lanes else f"{scalar} s{i}" for i, s in enumerate(sources)]
    return ", ".join(["uint32_t *to", "const uint32_t *m", *listed])


def _call(context: Context, helper: str, sources: list[Source], count: int) -> None:
    destination = context.vector_destination(context.instruction.decoded.vdst.offset, count)
    context.emit(f"{helper}({', '.join([destination, 'w->lane_mask', *(s.argument for s in sources)])});")


def _high_select(decoded) -> int:
    return decoded.opsel_hi | decoded.opsel_hi2 << 2


def _emit_packed_16(context: Context) -> None:
    decoded, name = context.instruction.decoded, context.instruction.name
    kind, count, expression = _PACKED_16[name]
    if kind != "f16" and (decoded.neg or decoded.neg_hi):
        raise context.instruction.unsupported("sign modifiers on packed integers")
    sources = _operands(context, count, kind)
    value = apply_output_modifiers(context, kind, expression, Modifiers(clamp=decoded.clmp))
    declared = "int64_t" if decoded.clmp and kind != "f16" else _C_TYPES[kind]
    lines = ["    LANES {", "        uint32_t low, high;"]
    for half, select, negate in (
        ("low", decoded.opsel, decoded.neg),
        ("high", _high_select(decoded), decoded.neg_hi),
    ):
        lines.append("        {")
        for i, source in enumerate(sources):
            chosen = Source(source.argument, source.lanes, bool(negate >> i & 1), False, bool(select >> i & 1))
            lines.append(f"            const {declared} {'abc'[i]} = {lane_value(i, kind, chosen)};")
        result = f"bits_f16({value})" if kind == "f16" else f"(uint16_t)({value})"
        lines += [f"            {half} = {result};", "        }"]
    lines += ["        KEEP(to, l, low | high << 16);", "    }"]
    _call(context, context.helper(name, _parameters(sources), "\n".join(lines)), sources, 1)


def _word(position: int, source: Source, high: int) -> str:
    return f"s{position}[l + {64 * high}]" if source.lanes else f"(uint32_t)(s{position} >> {32 * high})"


def _emit_packed_f32(context: Context) -> None:
    decoded, name = context.instruction.decoded, context.instruction.name
    count, expression = _PACKED_F32[name]
    sources = _operands(context, count, "f32", wide=True)
    value = f"clamp01_f32({expression})" if decoded.clmp else expression
    lines = ["    LANES {", "        uint32_t low, high;"]
    for half, select, negate in (
        ("low", decoded.opsel, decoded.neg),
        ("high", _high_select(decoded), decoded.neg_hi),
    ):
        lines.append("        {")
        for i, source in enumerate(sources):
            word = f"as_f32({_word(i, source, select >> i & 1)})"
            lines.append(f"            const float {'abc'[i]} = {f'neg_f32({word})' if negate >> i & 1 else word};")
        lines += [f"            {half} = bits_f32({value});", "        }"]
    lines += ["        KEEP(to, l, low);", "        KEEP(to + 64, l, high);", "    }"]
    _call(context, context.helper(name, _parameters(sources, True), "\n".join(lines)), sources, 2)
    _split_words(context, count, decoded.opsel, _high_select(decoded))


def _split_words(context: Context, count: int, low_select: int, high_select: int) -> None:
    """Each word of the result depends on the words selected for it only."""
    decoded = context.instruction.decoded
    codes = [getattr(decoded, name).offset for name in ("src0", "src1", "src2")[:count]]
    for i, select in enumerate((low_select, high_select)):
        reads = [
            Access(code + (select >> k & 1), 1) for k, code in enumerate(codes) if code < 128 or code >= FIRST_VGPR
        ]
        context.split.append((reads, [Access(decoded.vdst.offset + i, 1)]))


def _emit_packed_move(context: Context) -> None:
    decoded = context.instruction.decoded
    sources = _operands(context, 2, "f32", wide=True)
    low, high = (_word(i, source, decoded.opsel >> i & 1) for i, source in enumerate(sources))
    body = (
        f"    LANES {{\n        const uint32_t low = {low}, high = {high};\n        KEEP(to, l, low);\n"
        f"        KEEP(to + 64, l, high);\n    }}"
    )
    _call(context, context.helper("v_pk_mov_b32", _parameters(sources, True), body), sources, 2)
    for i, name in enumerate(("src0", "src1")):
        code = getattr(decoded, name).offset
        reads = [Access(code + (decoded.opsel >> i & 1), 1)] if code < 128 or code >= FIRST_VGPR else []
        context.split.append((reads, [Access(decoded.vdst.offset + i, 1)]))


def _emit_mixed(context: Context) -> None:
    """v_mad_mix_* , which gfx942 and gfx950 compute fused: each source is FP32 or a half of an FP16 pair."""
    decoded, name = context.instruction.decoded, context.instruction.name
    halves = _high_select(decoded)
    sources = [_operands_at(context, i, "f16" if halves >> i & 1 else "f32") for i in range(3)]
    lines = ["    LANES {"]
    for i, source in enumerate(sources):
        kind = "f16" if halves >> i & 1 else "f32"
        chosen = Source(
            source.argument,
            source.lanes,
            bool(decoded.neg >> i & 1),
            bool(decoded.neg_hi >> i & 1),
            bool(decoded.opsel >> i & 1),
        )
        lines.append(f"        const float {'abc'[i]} = {lane_value(i, kind, chosen)};")
    value = "clamp01_f32({})" if decoded.clmp else "{}"
    if name == "V_MAD_MIX_F32":
        lines.append(f"        KEEP(to, l, bits_f32({value.format('__builtin_fmaf(a, b, c)')}));")
    else:
        half = f"bits_f16({value.format('odd_f32((double)a * (double)b + (double)c)')})"
        kept = f"(to[l] & 0xffff) | {half} << 16" if "HI" in name.split("_")[2] else f"(to[l] & 0xffff0000u) | {half}"
        lines.append(f"        KEEP(to, l, {kept});")
    lines.append("    }")
    _call(context, context.helper(name, _parameters(sources), "\n".join(lines)), sources, 1)


def _operands_at(context: Context, index: int, kind: str) -> Source:
    code = getattr(context.instruction.decoded, f"src{index}").offset
    if code >= FIRST_VGPR:
        return Source(context.vector_register(code, 1), True)
    return Source(context.scalar(code, kind if code >= 128 else "u32"), False)


def _emit_dot(context: Context) -> None:
    decoded, name = context.instruction.decoded, context.instruction.name
    kind, expression = _DOTS[name]
    if decoded.neg & 3 or decoded.neg_hi & 3 or decoded.opsel:
        raise context.instruction.unsupported("operand modifiers on a dot product")
    sources = [_operands_at(context, i, "u32") for i in range(2)] + [_operands_at(context, 2, kind)]
    accumulator = Source("", sources[2].lanes, bool(decoded.neg & 4))
    types = {"f32": "float", "i32": "int32_t", "u32": "uint32_t"}
    value = apply_output_modifiers(context, kind, expression, Modifiers(clamp=decoded.clmp))
    result = f"bits_f32({value})" if kind == "f32" else f"(uint32_t)({value})"
    widened = "int64_t" if decoded.clmp and kind != "f32" else types[kind]
    body = (
        f"    LANES {{\n        const uint32_t a = {lane_value(0, 'u32', sources[0])}, "
        f"b = {lane_value(1, 'u32', sources[1])};\n        const {widened} c = "
        f"{lane_value(2, kind, accumulator)};\n"
        f"        KEEP(to, l, {result});\n    }}"
    )
    _call(context, context.helper(name, _parameters(sources), body), sources, 1)


def emit_packed(context: Context) -> bool:
    """VOP3P other than the matrix instructions.  False when the opcode is not covered."""
    name = context.instruction.name
    if name in _PACKED_16:
        _emit_packed_16(context)
    elif name in _PACKED_F32:
        _emit_packed_f32(context)
    elif name == "V_PK_MOV_B32":
        _emit_packed_move(context)
    elif name.startswith("V_MAD_MIX"):
        _emit_mixed(context)
    elif name in _DOTS:
        _emit_dot(context)
    else:
        return False
    return True
