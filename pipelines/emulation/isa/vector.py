"""Plain vector instructions: their operands in every encoding, with DPP and SDWA around the operation."""

from __future__ import annotations

from .context import EXEC, FIRST_VGPR, VCC, Access, Context
from .lane_helpers import Modifiers, Source, is_wide, lane_helper
from .vector_table import LANE_OPERATIONS, LaneOperation

# 64-bit results whose low word does not depend on the high words of the operands: compilers leave those
# undefined.
_LOW_FROM_LOW = ("V_MAD_U64_U32", "V_MAD_I64_I32", "V_LSHL_ADD_U64", "V_LSHLREV_B64")


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
    codes = [
        getattr(decoded, name).offset
        for name in (("src0", "src1", "src2") if long_form else ("src0", "vsrc1"))
        if hasattr(decoded, name)
    ]
    modifiers = Modifiers()
    if long_form:
        modifiers = Modifiers(
            decoded.neg, getattr(decoded, "abs", 0), decoded.clmp, decoded.omod, getattr(decoded, "opsel", 0)
        )
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
                body = (
                    f"    dpp_gather(w, to, mask, from, {count}, {decoded.dpp:#x}, {decoded.bc}, "
                    f"{decoded.row_mask}, "
                    f"{decoded.bank_mask});"
                )
                gather = context.helper(
                    "dpp", "const struct Wave *w, uint32_t *to, uint32_t *mask, const uint32_t *from", body
                )
                context.emit(f"    uint32_t t0[{64 * count}], tm[64];")
                context.emit(f"    {gather}(w, t0, tm, {argument});")
                argument = "t0"
                context.step = "STEP_DPP"
                context.step_immediate = (
                    decoded.dpp | decoded.bc << 9 | decoded.row_mask << 12 | decoded.bank_mask << 16
                )
            source = Source(argument, True)
        else:
            source = _sdwa_source(context, index, code, kind)
        source.negate, source.absolute = (
            bool(getattr(decoded, f"src{index}_neg")),
            bool(getattr(decoded, f"src{index}_abs")),
        )
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
    pick = context.helper(
        "sdwa_select", "uint32_t *to, const uint32_t *from", f"    sdwa_select(to, from, {select}, {extend});"
    )
    context.emit(f"    uint32_t t{index}[64];")
    context.emit(f"    {pick}(t{index}, {argument});")
    return Source(f"t{index}", True)


def emit_vector_operation(context: Context) -> bool:
    """VOP1, VOP2, VOP3 and VOPC opcodes of the table, in any encoding.  False when the opcode is not
    there."""
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
        elif operation.name == "V_MOV_B64":
            context.split_by_word()
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
        place = context.helper(
            "sdwa_place",
            "const struct Wave *w, uint32_t *to, const uint32_t *value",
            f"    sdwa_place(w, to, value, {decoded.dst_sel}, {decoded.dst_unused});",
        )
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
