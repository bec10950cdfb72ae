"""SALU, SMEM and program control."""

from __future__ import annotations

from .context import SCC_REGISTER, VCC, Access, Context
from .program import branch_target, is_backward_branch
from .scalar_table import EXEC_OPERATIONS, SCALAR_OPERATIONS

_C_TYPES = {"u32": "uint32_t", "i32": "int32_t", "u64": "uint64_t", "i64": "int64_t"}
# Hints and cache control: nothing that emulation could show.
_NO_EFFECT = {
    "S_NOP",
    "S_SETPRIO",
    "S_ICACHE_INV",
    "S_INCPERFLEVEL",
    "S_DECPERFLEVEL",
    "S_TTRACEDATA",
    "S_SENDMSG",
    "S_DCACHE_INV",
    "S_DCACHE_WB",
    "S_DCACHE_INV_VOL",
    "S_DCACHE_WB_VOL",
    "S_WAKEUP",
    "S_SET_VALU_COEXEC_MODE",
}
_BRANCHES = {
    "S_CBRANCH_SCC0": "!w->scc",
    "S_CBRANCH_SCC1": "w->scc",
    "S_CBRANCH_VCCZ": f"get_64(w, {VCC}) == 0",
    "S_CBRANCH_VCCNZ": f"get_64(w, {VCC}) != 0",
    "S_CBRANCH_EXECZ": "exec_of(w) == 0",
    "S_CBRANCH_EXECNZ": "exec_of(w) != 0",
}
_HARDWARE_MODE, _HARDWARE_ID, _XCC_ID = 1, 4, 20


def _signed16(value: int) -> int:
    return value - 0x10000 if value & 0x8000 else value


def emit_scalar_operation(context: Context) -> bool:
    """SOP1, SOP2, SOPC and SOPK from the table.  False when the opcode is not in it."""
    instruction = context.instruction
    operation = SCALAR_OPERATIONS.get(instruction.name)
    if operation is None:
        return False
    decoded = instruction.decoded
    context.step = "STEP_SCALAR"
    fields = [getattr(decoded, name).offset for name in ("ssrc0", "ssrc1") if hasattr(decoded, name)]
    width = "u64" if operation.result in ("u64", "i64") else "u32"
    declarations = []
    if "scc" in operation.expression or "scc" in (operation.condition or ""):
        context.read(SCC_REGISTER, 1)
        declarations.append("const uint32_t scc = w->scc;")
    names = iter("ab")
    for position, source in enumerate(operation.sources):
        if source == "D":
            declarations.append(f"const {_C_TYPES[width]} d = {context.scalar(decoded.sdst.offset, width)};")
        elif source == "K":
            value = _signed16(decoded.simm16) & 0xFFFFFFFF
            declarations.append(f"const uint32_t {next(names)} = {value:#x}u;")
        else:
            code = fields[position]
            kind = "u" + source[1:] if code < 240 else source
            declarations.append(
                f"const {_C_TYPES[source]} {next(names)} = ({_C_TYPES[source]}){context.scalar(code, kind)};"
            )
    context.emit("{")
    for declaration in declarations:
        context.emit("    " + declaration)
    if operation.result != "-":
        context.emit(
            f"    const {_C_TYPES[operation.result]} r = ({_C_TYPES[operation.result]})({operation.expression});"
        )
        context.write_scalar(decoded.sdst.offset, "r", width == "u64")
    if operation.condition:
        context.write_condition(operation.condition)
    context.emit("}")
    if instruction.name in ("S_MOV_B64", "S_CSELECT_B64"):
        context.split_by_word()
    elif instruction.name == "S_LSHL_B64":
        context.split_low_from_low()
    return True


def emit_exec_operation(context: Context) -> bool:
    """S_*_SAVEEXEC and S_*_WREXEC."""
    instruction = context.instruction
    expression = EXEC_OPERATIONS.get(instruction.name)
    if expression is None:
        return False
    context.step = "STEP_SCALAR"
    source = context.scalar(instruction.decoded.ssrc0.offset, "u64")
    context.emit("{")
    context.emit(f"    const uint64_t a = {source}, exec = exec_of(w), r = {expression};")
    saved = "exec" if "SAVEEXEC" in instruction.name else "r"
    context.write_scalar(instruction.decoded.sdst.offset, saved, True)
    context.write_scalar(126, "r", True)
    context.write_condition("r != 0")
    context.emit("}")
    return True


def emit_control(context: Context) -> bool:
    """SOPP, jumps, and the SOPK operations on hardware registers."""
    instruction = context.instruction
    name, decoded = instruction.name, instruction.decoded
    context.step = "STEP_SCALAR"
    if name == "S_WAITCNT":
        context.step, context.step_immediate = "STEP_WAIT", decoded.simm16
        return True
    if name in _NO_EFFECT:
        return True
    if name == "S_ENDPGM":
        context.emit("strict_end(w); return WAVE_ENDED;" if context.strict else "return WAVE_ENDED;")
    elif name == "S_BRANCH":
        _emit_branch(context, "")
    elif name in _BRANCHES:
        with context.needing("NEED_CONDITION"):
            if "SCC" in name:
                context.read(SCC_REGISTER, 1)
            elif "VCC" in name:
                context.read(VCC, 2)
        _emit_branch(context, f"if ({_BRANCHES[name]}) ")
    elif name in ("S_BARRIER", "S_SLEEP"):
        context.step = "STEP_BARRIER" if name == "S_BARRIER" else context.step
        status = "WAVE_BARRIER" if name == "S_BARRIER" else "WAVE_YIELDED"
        context.emit(f"w->resume = {context.resume_number(instruction.next_address)}; return {status};")
    elif name == "S_GETPC_B64":
        context.write_scalar(decoded.sdst.offset, context.run_time_address(instruction.next_address), True)
    elif name in ("S_SETPC_B64", "S_SWAPPC_B64"):
        context.emit(f"jump = {context.scalar(decoded.ssrc0.offset, 'u64')};")
        if name == "S_SWAPPC_B64":
            context.write_scalar(decoded.sdst.offset, context.run_time_address(instruction.next_address), True)
        context.emit(f"jump_from = {instruction.address:#x}ull; goto dispatch;")
    elif name == "S_CALL_B64":
        context.write_scalar(decoded.sdst.offset, context.run_time_address(instruction.next_address), True)
        context.emit(f"goto L_{branch_target(instruction):x};")
    elif name == "S_TRAP":
        _emit_end_of_kernel(context, f"s_trap {decoded.simm16}: the kernel gave up (assertion or abort)")
    elif name == "S_SETHALT":
        if decoded.simm16 & 1:
            _emit_end_of_kernel(context, "s_sethalt: the wave stops for ever (the kernel gave up)")
    elif name in ("S_GETREG_B32", "S_SETREG_B32", "S_SETREG_IMM32_B32"):
        _emit_hardware_register(context)
    else:
        return False
    return True


def _emit_branch(context: Context, condition: str) -> None:
    """Loops yield every TURNS_BETWEEN_YIELDS turns, so that a wave that spins without s_sleep holds up no other."""
    target = branch_target(context.instruction)
    if not is_backward_branch(context.instruction):
        context.emit(f"{condition}goto L_{target:x};")
        return
    context.emit(f"{condition}{{")
    context.emit(f"    if (++w->turns % TURNS_BETWEEN_YIELDS) goto L_{target:x};")
    context.emit(f"    w->resume = {context.resume_number(target)}; return WAVE_YIELDED;")
    context.emit("}")


def _emit_end_of_kernel(context: Context, message: str) -> None:
    """A fault, blamed on the first lane that is on."""
    address = context.instruction.address
    context.emit(f'fault(w, "{message}", first_lane(w), {address:#x}ull); return WAVE_FAULTED;')


def _emit_hardware_register(context: Context) -> None:
    instruction = context.instruction
    name, decoded = instruction.name, instruction.decoded
    register, offset, size = decoded.simm16 & 63, decoded.simm16 >> 6 & 31, (decoded.simm16 >> 11 & 31) + 1
    mask = (1 << size) - 1
    if name == "S_GETREG_B32":
        known = {_HARDWARE_MODE: "w->mode", _HARDWARE_ID: "w->index_in_workgroup", _XCC_ID: "0u"}
        if register not in known:
            raise instruction.unsupported(f"hardware register {register} is not emulated")
        context.write_scalar(decoded.sdst.offset, f"{known[register]} >> {offset} & {mask:#x}u", False)
        return
    if register != _HARDWARE_MODE:
        raise instruction.unsupported(f"hardware register {register} cannot be written")
    value = f"{context.literal():#x}u" if name.endswith("IMM32_B32") else context.scalar(decoded.sdst.offset, "u32")
    context.emit(f"w->mode = (w->mode & ~({mask:#x}u << {offset})) | (({value} & {mask:#x}u) << {offset});")
    context.emit(f"apply_mode(w, {instruction.address:#x}ull);")
    context.stop_on_fault()


def emit_scalar_memory(context: Context) -> bool:
    """SMEM loads and clocks."""
    with context.needing("NEED_ADDRESS"):
        return _emit_scalar_memory(context)


def _emit_scalar_memory(context: Context) -> bool:
    instruction = context.instruction
    name, decoded = instruction.name, instruction.decoded
    if name in _NO_EFFECT:
        return True
    context.step, context.counters = "STEP_LOAD", "COUNTS_SCALAR"
    if name in ("S_MEMTIME", "S_MEMREALTIME"):
        context.write_scalar(decoded.sdata.offset, "wave_clock(w)", True)
        return True
    words = {"S_LOAD_DWORD": 1, "S_BUFFER_LOAD_DWORD": 1}.get(name.rpartition("X")[0] or name)
    if words is None:
        return False
    words = int(name.rpartition("X")[2]) if "DWORDX" in name else 1
    offset = decoded.offset - (1 << 21) if decoded.offset & 1 << 20 else decoded.offset
    terms = []
    if decoded.soffset_en:
        terms.append(f"(uint64_t){context.scalar(decoded.soffset.offset, 'u32')}")
    if decoded.imm:
        terms.append(f"(uint64_t)INT64_C({offset})")
    elif not decoded.soffset_en:
        # Without immediate and without an enabled SGPR the offset field names the SGPR.
        terms.append(f"(uint64_t){context.scalar(decoded.offset & 127, 'u32')}")
    destination = decoded.sdata.offset
    context.writes.append(Access(destination, words))
    if name.startswith("S_BUFFER"):
        context.read(decoded.sbase.offset, 4)
        context.emit(
            f"scalar_buffer_load(w, {destination}, {words}, {decoded.sbase.offset}, "
            f"(uint32_t)({' + '.join(terms)}), {instruction.address:#x}ull);"
        )
    else:
        base = context.scalar(decoded.sbase.offset, "u64")
        context.emit(
            f"scalar_load(w, {destination}, {words}, {base} + {' + '.join(terms)}, {instruction.address:#x}ull);"
        )
    if context.strict:
        context.stop_on_fault()
    return True
