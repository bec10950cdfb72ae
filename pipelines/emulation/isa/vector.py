"""Plain vector instructions: one generated helper per opcode, operand kinds and modifiers, with DPP and SDWA around it."""

from __future__ import annotations

from dataclasses import dataclass

from .context import EXEC, FIRST_VGPR, VCC, Access, Context
from .vector_table import LANE_OPERATIONS, LaneOperation

_C_TYPES = {
    "f32": "float", "f16": "float", "f64": "double", "u32": "uint32_t", "b32": "uint32_t", "raw_f32": "uint32_t",
    "raw_f16": "uint32_t", "i32": "int32_t", "u16": "uint16_t", "i16": "int16_t", "u64": "uint64_t", "i64": "int64_t",
    "bit": "uint32_t", "vcc": "uint32_t", "mode": "uint32_t",
}
_ENCODE = {"f32": "bits_f32({})", "f64": "bits_f64({})", "f16": "bits_f16({})"}
_HALVES = ("f16", "u16", "i16", "raw_f16")
_NAMES = "abce"
# 64-bit results whose low word does not depend on the high words of the operands: compilers leave those undefined.
_LOW_FROM_LOW = ("V_MOV_B64", "V_MAD_U64_U32", "V_MAD_I64_I32", "V_LSHL_ADD_U64", "V_LSHLREV_B64")
_CLAMPS = {"u32": (0, 2**32 - 1), "i32": (-(2**31), 2**31 - 1), "u16": (0, 65535), "i16": (-32768, 32767)}


@dataclass
class Source:
    """One operand as the helper sees it: C argument, whether it varies by lane, and its modifiers."""

    argument: str
    lanes: bool
    negate: bool = False
    absolute: bool = False
    high: bool = False


@dataclass
class Modifiers:
    """The modifier fields of an instruction, zero where its encoding has none."""

    negate: int = 0
    absolute: int = 0
    clamp: int = 0
    scale: int = 0
    select: int = 0


def is_wide(kind: str) -> bool:
    return kind.endswith("64")


def lane_value(position: int, kind: str, source: Source) -> str:
    """C expression for source number `position` in lane l."""
    name = f"s{position}"
    word = name
    if source.lanes:
        word = f"({name}[l] | (uint64_t){name}[l + 64] << 32)" if is_wide(kind) else f"{name}[l]"
    if kind in ("bit", "vcc"):
        return f"(uint32_t)({name} >> l & 1)"
    if kind in _HALVES and source.high:
        word = f"({word} >> 16)"
    if kind in ("f32", "f64", "f16"):
        width = "f64" if kind == "f64" else "f32"
        value = f"as_{kind}({word})"
        value = f"abs_{width}({value})" if source.absolute else value
        return f"neg_{width}({value})" if source.negate else value
    if kind in ("raw_f32", "raw_f16"):
        sign = "0x8000u" if kind == "raw_f16" else "0x80000000u"
        value = f"({word} & 0xffff)" if kind == "raw_f16" else word
        value = f"({value} & ~{sign})" if source.absolute else value
        return f"({value} ^ {sign})" if source.negate else value
    return f"({_C_TYPES[kind]}){word}"


def old_destination(kind: str, high: bool) -> str:
    """C expression for the destination's old value in lane l."""
    if is_wide(kind):
        word = "(to[l] | (uint64_t)to[l + 64] << 32)"
        return f"as_f64({word})" if kind == "f64" else f"({_C_TYPES[kind]}){word}"
    word = "(to[l] >> 16)" if kind in _HALVES and high else "to[l]"
    return f"as_{kind}({word})" if kind in ("f32", "f16") else f"({_C_TYPES[kind]}){word}"


def store_result(kind: str, keeps_half: bool, high: bool) -> list[str]:
    """C statements that put `r` into the destination's lane l under the mask m."""
    encoded = _ENCODE.get(kind, "{}").format("r")
    if is_wide(kind):
        return [f"const uint64_t bits = (uint64_t){encoded};", "KEEP(to, l, bits);", "KEEP(to + 64, l, bits >> 32);"]
    if kind in _HALVES:
        if high:
            return [f"KEEP(to, l, (to[l] & 0xffff) | (uint32_t)(uint16_t){encoded} << 16);"]
        kept = "(to[l] & 0xffff0000u) | " if keeps_half else ""
        return [f"KEEP(to, l, {kept}(uint16_t){encoded});"]
    return [f"KEEP(to, l, {encoded});"]


def _apply_output_modifiers(context: Context, kind: str, expression: str, modifiers: Modifiers) -> str:
    if modifiers.scale:
        if kind not in ("f32", "f16", "f64"):
            raise context.instruction.unsupported("output scaling of an integer")
        expression = f"({expression}) * {('', '2.0f', '4.0f', '0.5f')[modifiers.scale]}"
    if modifiers.clamp and kind in ("f32", "f16", "f64"):
        return f"clamp01_{'f64' if kind == 'f64' else 'f32'}({expression})"
    if modifiers.clamp and kind in _CLAMPS:
        low, high = _CLAMPS[kind]
        return f"clamp_i64({expression}, {low}ll, {high}ll)"
    if modifiers.clamp and kind != "mask":
        raise context.instruction.unsupported("clamp on this result type")
    return expression


def lane_helper(context: Context, operation: LaneOperation, sources: list[Source], modifiers: Modifiers) -> str:
    """Define the helper for this opcode with these operand kinds; its parameters are (to, m, exec, s0, s1, ...)."""
    parameters = ["uint32_t *to", "const uint32_t *m", "uint64_t exec"]
    body = []
    widen = modifiers.clamp and operation.result in _CLAMPS
    names = iter(_NAMES)
    position = 0
    high = bool(modifiers.select & 8)
    for kind in operation.sources:
        if kind == "D":
            body.append(f"const {_C_TYPES[operation.result]} d = {old_destination(operation.result, high)};")
            continue
        if kind in ("TABLE", "SELECT"):
            value = modifiers.select if kind == "SELECT" else modifiers.scale << 6 | modifiers.absolute << 3 | modifiers.negate
            body.append(f"enum {{ {kind} = {value} }};")
            continue
        if kind == "K":
            body.append(f"const float k = as_f32(s{position});")
            parameters.append(f"uint32_t s{position}")
            position += 1
            continue
        source = sources[position]
        letter = next(names)
        declared = "int64_t" if widen and kind in _CLAMPS else _C_TYPES[kind]
        body.append(f"const {declared} {letter} = {lane_value(position, kind, source)};")
        scalar_type = "uint64_t" if is_wide(kind) or kind in ("bit", "vcc") else "uint32_t"
        parameters.append(f"const uint32_t *s{position}" if source.lanes else f"{scalar_type} s{position}")
        position += 1
    table = "TABLE" in operation.sources
    expression = operation.expression
    if operation.result == "mask":
        return _mask_helper(context, operation, parameters, body, expression)
    if not table:
        expression = _apply_output_modifiers(context, operation.result, expression, modifiers)
    integer_clamp = widen and not table
    body.append(f"const {'int64_t' if integer_clamp else _C_TYPES[operation.result]} r = "
                f"({'int64_t' if integer_clamp else _C_TYPES[operation.result]})({expression});")
    if operation.carry:
        body.append(f"carries |= (uint64_t)(({operation.carry}) != 0) << l;")
    body += store_result(operation.result, operation.keeps_half, high)
    lines = ["    uint64_t carries = 0;"] if operation.carry else []
    lines += ["    LANES {", *("        " + line for line in body), "    }"]
    lines.append("    return carries & exec;" if operation.carry else "    (void)exec;")
    return context.helper(operation.name, ", ".join(parameters), "\n".join(lines), "uint64_t" if operation.carry else "void")


def _mask_helper(context, operation, parameters, body, expression) -> str:
    lines = ["    uint64_t mask = 0;", "    (void)to, (void)m;", "    LANES {", *("        " + line for line in body),
             f"        mask |= (uint64_t)(({expression}) != 0) << l;", "    }", "    return mask & exec;"]
    return context.helper(operation.name, ", ".join(parameters), "\n".join(lines), "uint64_t")


def _read_source(context: Context, code: int, kind: str) -> Source:
    if code >= FIRST_VGPR:
        return Source(context.vector_register(code, 2 if is_wide(kind) else 1), True)
    if kind == "bit":
        return Source(context.scalar(code, "u64"), False)
    if kind.startswith("raw_"):
        kind = kind[4:]
    return Source(context.scalar(code, kind if code >= 128 else ("u64" if is_wide(kind) else "u32")), False)


def _implicit_source(context: Context, kind: str) -> Source:
    if kind == "mode":
        return Source("w->mode", False)
    context.read(VCC, 2)
    return Source(f"get_64(w, {VCC})", False)


def _sources_and_modifiers(context: Context, operation: LaneOperation) -> tuple[list[Source], Modifiers]:
    """Operands in table order, for every encoding but DPP and SDWA."""
    decoded, form = context.instruction.decoded, context.instruction.format
    long_form = form.startswith("VOP3")
    codes = [getattr(decoded, name).offset for name in (("src0", "src1", "src2") if long_form else ("src0", "vsrc1"))
             if hasattr(decoded, name)]
    modifiers = Modifiers()
    if long_form:
        modifiers = Modifiers(decoded.neg, getattr(decoded, "abs", 0), decoded.clmp, decoded.omod, getattr(decoded, "opsel", 0))
    table = "TABLE" in operation.sources
    selects = operation.name == "V_CNDMASK_B32"
    if selects:
        context.step = "STEP_SELECT"
    sources = []
    for kind in operation.sources:
        index = len(sources)
        if kind in ("D", "TABLE", "SELECT"):
            continue
        if kind == "K":
            sources.append(Source(f"{context.literal():#x}u", False))
            continue
        if kind in ("vcc", "mode") or (kind == "bit" and not long_form):
            sources.append(_implicit_source(context, kind))
            continue
        source = _read_source(context, codes[index], kind)
        if selects and len(context.reads) == index:
            context.read_nothing()
        if not table:
            source.negate = bool(modifiers.negate >> index & 1)
            source.absolute = bool(modifiers.absolute >> index & 1)
        source.high = bool(modifiers.select >> index & 1)
        if (source.negate or source.absolute) and kind not in ("f32", "f64", "f16", "raw_f32", "raw_f16"):
            raise context.instruction.unsupported("sign modifiers on an integer operand")
        sources.append(source)
    return sources, modifiers


def _sdwa_or_dpp_sources(context: Context, operation: LaneOperation, dpp: bool) -> list[Source]:
    """src0 (and src1) rearranged into temporaries t0, t1; DPP also makes the mask tm."""
    decoded = context.instruction.decoded
    sources = []
    for kind in operation.sources:
        index = len(sources)
        if kind == "D":
            continue
        if kind in ("vcc", "mode", "bit"):
            sources.append(_implicit_source(context, kind))
            continue
        count = 2 if is_wide(kind) else 1
        code = (decoded.vsrc0 if index == 0 else decoded.vsrc1).offset
        if dpp:
            argument = context.vector_register(code, count)
            if index == 0:
                body = (f"    dpp_gather(w, to, mask, from, {count}, {decoded.dpp:#x}, {decoded.bc}, {decoded.row_mask}, "
                        f"{decoded.bank_mask});")
                gather = context.helper("dpp", "const struct Wave *w, uint32_t *to, uint32_t *mask, const uint32_t *from", body)
                context.emit(f"    uint32_t t0[{64 * count}], tm[64];")
                context.emit(f"    {gather}(w, t0, tm, {argument});")
                argument = "t0"
                context.step = "STEP_DPP"
                context.step_immediate = decoded.dpp | decoded.bc << 9 | decoded.row_mask << 12 | decoded.bank_mask << 16
            source = Source(argument, True)
        else:
            source = _sdwa_source(context, index, code, kind)
        source.negate, source.absolute = bool(getattr(decoded, f"src{index}_neg")), bool(getattr(decoded, f"src{index}_abs"))
        sources.append(source)
    return sources


def _sdwa_source(context: Context, index: int, code: int, kind: str) -> Source:
    decoded = context.instruction.decoded
    select, extend = getattr(decoded, f"src{index}_sel"), getattr(decoded, f"src{index}_sext")
    if getattr(decoded, f"s{index}"):
        word = context.scalar(code - FIRST_VGPR, "u32")
        return Source(f"sdwa_pick({word}, {select}, {extend})", False)
    argument = context.vector_register(code, 2 if is_wide(kind) else 1)
    if select == 6:
        return Source(argument, True)
    pick = context.helper("sdwa_select", "uint32_t *to, const uint32_t *from",
                          f"    sdwa_select(to, from, {select}, {extend});")
    context.emit(f"    uint32_t t{index}[64];")
    context.emit(f"    {pick}(t{index}, {argument});")
    return Source(f"t{index}", True)


def emit_vector_operation(context: Context) -> bool:
    """VOP1, VOP2, VOP3 and VOPC opcodes of the table, in any encoding.  False when the opcode is not there."""
    instruction = context.instruction
    name = instruction.name.replace("V_CMPX_", "V_CMP_")
    operation = LANE_OPERATIONS.get(name)
    if operation is None:
        return False
    decoded, form = instruction.decoded, instruction.format
    context.emit("{")
    dpp, sdwa = form.endswith("DPP16"), "SDWA" in form
    if dpp or sdwa:
        sources = _sdwa_or_dpp_sources(context, operation, dpp)
        modifiers = Modifiers(clamp=getattr(decoded, "clmp", 0), scale=getattr(decoded, "omod", 0))
    else:
        sources, modifiers = _sources_and_modifiers(context, operation)
    helper = lane_helper(context, operation, sources, modifiers)
    arguments = ", ".join(source.argument for source in sources)
    mask = "tm" if dpp else "w->lane_mask"
    if operation.result == "mask":
        _emit_comparison(context, f"{helper}(NULL, w->lane_mask, exec_of(w), {arguments})")
    else:
        count = 2 if is_wide(operation.result) else 1
        destination = context.vector_destination(decoded.vdst.offset, count)
        if "D" in operation.sources:
            context.read(decoded.vdst.offset, count)
        _emit_result(context, helper, destination, mask, arguments, operation, sdwa)
        if operation.name in _LOW_FROM_LOW:
            context.split_low_from_low()
    context.emit("}")
    return True


def _emit_result(context, helper, destination, mask, arguments, operation, sdwa) -> None:
    decoded = context.instruction.decoded
    placed = sdwa and hasattr(decoded, "dst_sel") and decoded.dst_sel != 6
    target = destination
    if placed:
        if is_wide(operation.result):
            raise context.instruction.unsupported("SDWA destination selection of a 64-bit result")
        context.emit(f"    uint32_t td[64]; memcpy(td, {destination}, 256);")
        target = "td"
    call = f"{helper}({target}, {mask}, exec_of(w), {arguments})"
    if operation.carry:
        carry = decoded.sdst.offset if hasattr(decoded, "sdst") else VCC
        context.writes.append(Access(carry, 2))
        context.emit(f"    set_mask(w, {carry}, {call});")
    else:
        context.emit(f"    {call};")
    if placed:
        place = context.helper("sdwa_place", "const struct Wave *w, uint32_t *to, const uint32_t *value",
                               f"    sdwa_place(w, to, value, {decoded.dst_sel}, {decoded.dst_unused});")
        context.emit(f"    {place}(w, {destination}, td);")


def _emit_comparison(context: Context, call: str) -> None:
    decoded, form = context.instruction.decoded, context.instruction.format
    target = VCC
    if form == "VOP3_SDST":
        target = decoded.vdst.offset
    elif "SDWA" in form and decoded.sd:
        target = decoded.sdst.offset
    context.writes.append(Access(target, 2))
    context.emit(f"    const uint64_t mask = {call};")
    context.emit(f"    set_mask(w, {target}, mask);")
    if context.instruction.name.startswith("V_CMPX_"):
        context.writes.append(Access(EXEC, 2))
        context.emit(f"    set_mask(w, {EXEC}, mask);")
