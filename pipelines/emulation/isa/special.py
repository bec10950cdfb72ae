"""Vector instructions that move data between lanes or between register files."""

from __future__ import annotations

from .context import FIRST_VGPR, Access, Context


def _emit_read_lane(context: Context) -> None:
    decoded, name = context.instruction.decoded, context.instruction.name
    if name == "V_READFIRSTLANE_B32":
        lane, code = "first_lane(w)", 0xFFFF
    else:
        code = decoded.src1.offset
        lane = f"({context.scalar(decoded.src1.offset, 'u32')} & 63)"
    context.step, context.step_immediate = "STEP_READLANE", code
    source = context.vector_register(decoded.src0.offset, 1)
    destination = decoded.vdst.offset
    # In the vector encodings an SGPR destination stands in the vdst field.
    destination = destination - FIRST_VGPR if destination >= FIRST_VGPR else destination
    context.write_scalar(destination, f"{source}[{lane}]", False)


def _emit_write_lane(context: Context) -> None:
    decoded = context.instruction.decoded
    context.step, context.step_immediate = "STEP_WRITELANE", decoded.src1.offset
    value = context.scalar(decoded.src0.offset, "u32")
    if not context.reads:
        context.read_nothing()
    lane = context.scalar(decoded.src1.offset, "u32")
    destination = context.vector_destination(decoded.vdst.offset, 1)
    context.emit(f"{destination}[{lane} & 63] = {value};")


def _emit_accumulator_move(context: Context) -> None:
    """v_accvgpr_read, _write and _mov: plain moves between the two register files."""
    decoded, name = context.instruction.decoded, context.instruction.name
    code = decoded.src0.offset
    from_accumulator, to_accumulator = name != "V_ACCVGPR_WRITE", name != "V_ACCVGPR_READ"
    destination = context.vector_destination(decoded.vdst.offset, 1, to_accumulator)
    if code >= FIRST_VGPR:
        source = context.vector_register(code, 1, from_accumulator)
        move = context.helper(
            "v_accvgpr_mov",
            "uint32_t *to, const uint32_t *m, const uint32_t *s0",
            "    LANES KEEP(to, l, s0[l]);",
        )
    else:
        source = context.scalar(code, "u32")
        move = context.helper(
            "v_accvgpr_mov", "uint32_t *to, const uint32_t *m, uint32_t s0", "    LANES KEEP(to, l, s0);"
        )
    context.emit(f"{move}({destination}, w->lane_mask, {source});")


def _emit_swap(context: Context) -> None:
    decoded, name = context.instruction.decoded, context.instruction.name
    distance = {"V_SWAP_B32": 0, "V_PERMLANE16_SWAP_B32": 16, "V_PERMLANE32_SWAP_B32": 32}[name]
    codes = (decoded.vdst.offset, decoded.src0.offset)
    first, second = (context.vector_register(code, 1) for code in codes)
    context.writes += [Access(code, 1) for code in codes]
    context.emit(f"swap_lanes(w, {first}, {second}, {distance});")


def emit_special(context: Context) -> bool:
    """False when the opcode is none of these."""
    name = context.instruction.name
    if name in ("V_NOP", "V_CLREXCP"):
        return True
    if name in ("V_READFIRSTLANE_B32", "V_READLANE_B32"):
        _emit_read_lane(context)
    elif name == "V_WRITELANE_B32":
        _emit_write_lane(context)
    elif name.startswith("V_ACCVGPR"):
        _emit_accumulator_move(context)
    elif name in ("V_SWAP_B32", "V_PERMLANE16_SWAP_B32", "V_PERMLANE32_SWAP_B32"):
        _emit_swap(context)
    else:
        return False
    return True
