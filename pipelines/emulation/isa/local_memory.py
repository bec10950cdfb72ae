"""DS instructions: LDS reads, writes, atomics, transposing reads, and the lane permutes that share the
encoding."""

from __future__ import annotations

import re

from .context import Context
from .vector_memory import shape_source

_READS = {
    "READ_U8": (1, "FILL_U8", 0),
    "READ_I8": (1, "FILL_I8", 0),
    "READ_U16": (2, "FILL_U16", 0),
    "READ_I16": (2, "FILL_I16", 0),
    "READ_U8_D16": (1, "FILL_U8", 1),
    "READ_U8_D16_HI": (1, "FILL_U8", 2),
    "READ_I8_D16": (1, "FILL_I8", 1),
    "READ_I8_D16_HI": (1, "FILL_I8", 2),
    "READ_U16_D16": (2, "FILL_U16", 1),
    "READ_U16_D16_HI": (2, "FILL_U16", 2),
}
_WRITES = {
    "WRITE_B8": (1, "FILL_U8", 0),
    "WRITE_B16": (2, "FILL_U16", 0),
    "WRITE_B8_D16_HI": (1, "FILL_U8", 2),
    "WRITE_B16_D16_HI": (2, "FILL_U16", 2),
}
_TRANSPOSED = {
    "READ_B64_TR_B16": (16, 4),
    "READ_B64_TR_B8": (8, 8),
    "READ_B64_TR_B4": (4, 16),
    "READ_B96_TR_B6": (6, 16),
}
_INTEGER_ATOMICS = {
    "ADD_U": "add",
    "SUB_U": "sub",
    "RSUB_U": "rsub",
    "INC_U": "inc",
    "DEC_U": "dec",
    "MIN_I": "smin",
    "MAX_I": "smax",
    "MIN_U": "umin",
    "MAX_U": "umax",
    "AND_B": "and",
    "OR_B": "or",
    "XOR_B": "xor",
    "MSKOR_B": "mskor",
    "WRXCHG_B": "swap",
    "CMPST_B": "cmpswap",
}
_FLOAT_ATOMICS = {
    "ADD_F32",
    "MIN_F32",
    "MAX_F32",
    "ADD_F64",
    "MIN_F64",
    "MAX_F64",
    "PK_ADD_F16",
    "PK_ADD_BF16",
}


def _atomic(name: str) -> tuple[str, int, bool] | None:
    """C name, width in bits and whether the old value is returned."""
    returns = "_RTN" in name
    plain = name.replace("_RTN", "")
    if plain in _FLOAT_ATOMICS:
        return plain.lower(), 64 if plain.endswith("F64") else 32, returns
    stem, bits = plain[:-2], plain[-2:]
    if stem in _INTEGER_ATOMICS and bits in ("32", "64"):
        return f"{_INTEGER_ATOMICS[stem]}_{bits}", int(bits), returns
    return None


def _address(context: Context) -> str:
    with context.needing("NEED_ADDRESS"):
        return context.vector_register(context.instruction.decoded.addr.offset, 1)


def _offset(decoded) -> int:
    return decoded.offset0 | decoded.offset1 << 8


def _emit_access(context: Context, shape, offset: int, data: str, is_store: bool, lanes: str) -> None:
    use = "USE_STORE" if is_store else "USE_LOAD"
    helper = context.helper(
        context.instruction.name,
        "struct Wave *w, const uint32_t *lanes, uint32_t *data, uint32_t offset, uint64_t at",
        f"    lds_lanes(w, lanes, data, offset, {shape_source(shape)}, {use}, at);",
    )
    context.emit(f"{helper}(w, {lanes}, {data}, {offset}, {context.instruction.address:#x}ull);")


def _emit_pair(context: Context, name: str, accumulator: bool) -> None:
    """read2/write2 and their st64 forms: two accesses at offset0 and offset1 in units of the size (times
    64)."""
    decoded = context.instruction.decoded
    size = 8 if name.endswith("B64") else 4
    unit = size * (64 if "ST64" in name else 1)
    is_store = name.startswith("WRITE")
    lanes = _address(context)
    shape = (size, "FILL_WHOLE", 0)
    if is_store:
        parts = [
            context.vector_register(code.offset, size // 4, accumulator) for code in (decoded.data0, decoded.data1)
        ]
    else:
        # Both reads use the address as it was, also when the destination overlaps it.
        context.emit(f"{{ uint32_t kept[64]; memcpy(kept, {lanes}, 256);")
        base = context.vector_destination(decoded.vdst.offset, size // 2, accumulator)
        parts, lanes = [base, f"{base} + {size * 16}"], "kept"
    for part, offset in zip(parts, (decoded.offset0, decoded.offset1), strict=False):
        _emit_access(context, shape, offset * unit, part, is_store, lanes)
    if not is_store:
        context.emit("}")


def _emit_atomic(context: Context, known, accumulator: bool) -> None:
    name, bits, returns = known
    decoded = context.instruction.decoded
    count = bits // 32
    lanes = _address(context)
    data = context.vector_register(decoded.data0.offset, count, accumulator)
    second = "NULL"
    if name.startswith(("cmpswap", "mskor")):
        second = context.vector_register(decoded.data1.offset, count, accumulator)
        if name.startswith("cmpswap"):  # the value compared with comes first
            data, second = second, data
    destination = context.vector_destination(decoded.vdst.offset, count, accumulator) if returns else "NULL"
    helper = context.helper(
        context.instruction.name,
        "struct Wave *w, uint32_t *d, const uint32_t *lanes, uint32_t offset, const uint32_t *data, "
        "const uint32_t *second, uint64_t at",
        f"    LDS_ATOMIC(w, d, lanes, offset, data, second, {name}, uint{bits}_t, at)",
    )
    context.emit(
        f"{helper}(w, {destination}, {lanes}, {_offset(decoded)}, {data}, {second}, "
        f"{context.instruction.address:#x}ull);"
    )


def _emit_lane_move(context: Context, name: str, accumulator: bool) -> None:
    decoded = context.instruction.decoded
    destination = context.vector_destination(decoded.vdst.offset, 1, accumulator)
    if name == "SWIZZLE_B32":
        if _offset(decoded) & 0x8000 and _offset(decoded) & 0x7F00:
            raise context.instruction.unsupported("swizzle mode beyond bit masks and quads")
        # The data of a swizzle stands in the address field.
        data = context.vector_register(decoded.addr.offset, 1)
        context.step, context.step_immediate = "STEP_SWIZZLE", _offset(decoded)
        context.emit(f"swizzle_lanes(w, {destination}, {data}, {_offset(decoded)});")
        return
    lanes = _address(context)
    data = context.vector_register(decoded.data0.offset, 1, accumulator)
    context.step = "STEP_PERMUTE" if name == "PERMUTE_B32" else "STEP_BACKWARD_PERMUTE"
    context.step_immediate = _offset(decoded)
    function = "permute_lanes" if name == "PERMUTE_B32" else "backward_permute_lanes"
    context.emit(f"{function}(w, {destination}, {lanes}, {data}, {_offset(decoded)});")


def emit_local_memory(context: Context) -> bool:
    """False when the opcode is not covered."""
    instruction = context.instruction
    decoded, name = instruction.decoded, instruction.name.removeprefix("DS_")
    accumulator = bool(decoded.acc)
    if decoded.gds:
        raise instruction.unsupported("global data share")
    context.step, context.counters = "STEP_LOAD", "COUNTS_LDS"
    if name == "NOP":
        return True
    if name in ("PERMUTE_B32", "BPERMUTE_B32", "SWIZZLE_B32"):
        _emit_lane_move(context, name, accumulator)
        return True
    wide = re.fullmatch(r"(READ|WRITE)_B(32|64|96|128)", name)
    if re.fullmatch(r"(READ|WRITE)2(ST64)?_B(32|64)", name):
        _emit_pair(context, name, accumulator)
    elif wide or name in _READS or name in _WRITES:
        shape = (int(wide[2]) // 8, "FILL_WHOLE", 0) if wide else _READS.get(name) or _WRITES[name]
        is_store, count = name.startswith("WRITE"), max(1, shape[0] // 4)
        lanes = _address(context)
        data = (
            context.vector_register(decoded.data0.offset, count, accumulator)
            if is_store
            else context.vector_destination(decoded.vdst.offset, count, accumulator)
        )
        _emit_access(context, shape, _offset(decoded), data, is_store, lanes)
    elif name in _TRANSPOSED:
        bits, elements = _TRANSPOSED[name]
        lanes = _address(context)
        data = context.vector_destination(decoded.vdst.offset, bits * elements // 32, accumulator)
        helper = context.helper(
            instruction.name,
            "struct Wave *w, uint32_t *d, const uint32_t *lanes, uint32_t offset, uint64_t at",
            f"    lds_load_transposed(w, d, lanes, offset, {bits}, {elements}, at);",
        )
        context.emit(f"{helper}(w, {data}, {lanes}, {_offset(decoded)}, {instruction.address:#x}ull);")
    elif known := _atomic(name):
        _emit_atomic(context, known, accumulator)
    else:
        return False
    context.stop_on_fault()
    return True
