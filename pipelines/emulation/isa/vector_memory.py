"""FLAT, GLOBAL, SCRATCH and MUBUF instructions."""

from __future__ import annotations

import re

from .context import M0, Context

# Bytes, fill and half of a load or store by the part of its name behind LOAD_ or STORE_.
_NARROW = {
    "UBYTE": (1, "FILL_U8", 0),
    "SBYTE": (1, "FILL_I8", 0),
    "USHORT": (2, "FILL_U16", 0),
    "SSHORT": (2, "FILL_I16", 0),
    "UBYTE_D16": (1, "FILL_U8", 1),
    "UBYTE_D16_HI": (1, "FILL_U8", 2),
    "SBYTE_D16": (1, "FILL_I8", 1),
    "SBYTE_D16_HI": (1, "FILL_I8", 2),
    "SHORT_D16": (2, "FILL_U16", 1),
    "SHORT_D16_HI": (2, "FILL_U16", 2),
    "BYTE": (1, "FILL_U8", 0),
    "BYTE_D16_HI": (1, "FILL_U8", 2),
    "SHORT": (2, "FILL_U16", 0),
}
_FLOAT_ATOMICS = {
    "ADD_F32": 32,
    "PK_ADD_F16": 32,
    "PK_ADD_BF16": 32,
    "ADD_F64": 64,
    "MIN_F64": 64,
    "MAX_F64": 64,
}
_NO_ADDRESS = 0x7F


def shape_of(suffix: str) -> tuple[int, str, int] | None:
    """(bytes, fill, half) of DWORD, DWORDX3, UBYTE_D16_HI, ...; None for anything else."""
    if match := re.fullmatch(r"DWORD(?:X(\d))?", suffix):
        return 4 * int(match[1] or 1), "FILL_WHOLE", 0
    return _NARROW.get(suffix)


def shape_source(shape: tuple[int, str, int]) -> str:
    return f"(struct Shape){{{shape[0]}, {shape[1]}, {shape[2]}}}"


def atomic_of(suffix: str) -> tuple[str, int] | None:
    """C name and width in bits of a memory atomic: ADD, ADD_X2, PK_ADD_F16, ..."""
    if suffix in _FLOAT_ATOMICS:
        return suffix.lower(), _FLOAT_ATOMICS[suffix]
    bits = 64 if suffix.endswith("_X2") else 32
    stem = suffix.removesuffix("_X2").lower()
    known = (
        "swap",
        "cmpswap",
        "add",
        "sub",
        "smin",
        "umin",
        "smax",
        "umax",
        "and",
        "or",
        "xor",
        "inc",
        "dec",
    )
    return (f"{stem}_{bits}", bits) if stem in known else None


def _use(is_store: bool) -> str:
    return "USE_STORE" if is_store else "USE_LOAD"


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


def _addresses(context: Context, segment: str) -> None:
    """Emit `at[64]`, the byte address of each lane of a global or flat access."""
    with context.needing("NEED_ADDRESS"):
        _emit_addresses(context, segment)


def _emit_addresses(context: Context, segment: str) -> None:
    decoded = context.instruction.decoded
    scalar = (context.instruction.raw >> 48) & 0x7F
    offset = decoded.offset & 0xFFF if segment == "FLAT" else _signed(decoded.offset, 13)
    context.emit("    uint64_t at[64];")
    if segment == "FLAT" or scalar == _NO_ADDRESS:
        context.emit(f"    addresses_64(at, {context.vector_register(decoded.addr.offset, 2)}, {offset});")
    else:
        base = context.scalar(scalar, "u64")
        context.emit(f"    addresses_32(at, {base}, {context.vector_register(decoded.addr.offset, 1)}, {offset});")


def _data(context: Context, code: int, count: int, is_store: bool, accumulator: bool) -> str:
    if is_store:
        with context.needing("NEED_STORED"):
            return context.vector_register(code, count, accumulator)
    return context.vector_destination(code, count, accumulator)


def emit_flat(context: Context) -> bool:
    """FLAT_*, GLOBAL_* and SCRATCH_*."""
    instruction = context.instruction
    segment, _, rest = instruction.name.partition("_")
    kind, _, suffix = rest.partition("_")
    accumulator = bool(instruction.raw >> 55 & 1)
    context.step = "STEP_LOAD"
    context.counters = "COUNTS_VECTOR | COUNTS_LDS" if segment == "FLAT" else "COUNTS_VECTOR"
    context.emit("{")
    if segment == "SCRATCH":
        done = _emit_scratch(context, kind, suffix, accumulator)
    elif kind == "ATOMIC":
        done = _emit_atomic(context, segment, suffix, accumulator)
    elif kind == "LOAD" and suffix.startswith("LDS_"):
        done = _emit_global_to_lds(context, suffix.removeprefix("LDS_"))
    else:
        done = _emit_load_or_store(context, segment, kind, suffix, accumulator)
    context.emit("}")
    if done:
        context.stop_on_fault()
    return done


def _emit_load_or_store(context, segment, kind, suffix, accumulator) -> bool:
    shape = shape_of(suffix)
    if shape is None or kind not in ("LOAD", "STORE"):
        return False
    decoded, is_store = context.instruction.decoded, kind == "STORE"
    _addresses(context, segment)
    data = _data(
        context,
        (decoded.data if is_store else decoded.vdst).offset,
        max(1, shape[0] // 4),
        is_store,
        accumulator,
    )
    flat = int(segment == "FLAT")
    helper = context.helper(
        context.instruction.name,
        "struct Wave *w, uint32_t *data, const uint64_t *addresses, uint64_t at",
        f"    global_lanes(w, data, addresses, {shape_source(shape)}, {_use(is_store)}, {flat}, at);",
    )
    context.emit(f"    {helper}(w, {data}, at, {context.instruction.address:#x}ull);")
    return True


def _emit_scratch(context, kind, suffix, accumulator) -> bool:
    shape = shape_of(suffix)
    if shape is None:
        return False
    decoded, is_store = context.instruction.decoded, kind == "STORE"
    scalar = (context.instruction.raw >> 48) & 0x7F
    with context.needing("NEED_ADDRESS"):
        base = "0" if scalar == _NO_ADDRESS else context.scalar(scalar, "u32")
        lanes = context.vector_register(decoded.addr.offset, 1) if decoded.sve else "NULL"
    # Spills may save registers that hold nothing yet, so that scratch takes undefined data.
    move = context.vector_register if is_store else context.vector_destination
    data = move((decoded.data if is_store else decoded.vdst).offset, max(1, shape[0] // 4), accumulator)
    helper = context.helper(
        context.instruction.name,
        "struct Wave *w, uint32_t *data, const uint32_t *lanes, uint32_t base, int32_t offset, uint64_t at",
        f"    scratch_lanes(w, data, lanes, base, offset, {shape_source(shape)}, {_use(is_store)}, at);",
    )
    context.emit(
        f"    {helper}(w, {data}, {lanes}, {base}, {_signed(decoded.offset, 13)}, {context.instruction.address:#x}ull);"
    )
    return True


def _emit_global_to_lds(context, suffix) -> bool:
    shape = shape_of(suffix)
    if shape is None:
        return False
    _addresses(context, "GLOBAL")
    with context.needing("NEED_ADDRESS"):
        context.read(M0, 1)
    offset = _signed(context.instruction.decoded.offset, 13)
    context.emit(f"    global_to_lds(w, at, {offset}, {shape_source(shape)}, {context.instruction.address:#x}ull);")
    return True


def _atomic_arguments(context, name, bits, data_code, destination_code, returns, accumulator):
    """C pointers to data, to the value compared with (or NULL) and to the destination (or NULL)."""
    count = bits // 32
    compares = name.startswith("cmpswap")
    with context.needing("NEED_STORED"):
        data = context.vector_register(data_code, 2 * count if compares else count, accumulator)
    second = f"({data} + {64 * count})" if compares else "NULL"
    destination = context.vector_destination(destination_code, count, accumulator) if returns else "NULL"
    return data, second, destination


def _emit_atomic(context, segment, suffix, accumulator) -> bool:
    known = atomic_of(suffix)
    if known is None:
        return False
    name, bits = known
    decoded = context.instruction.decoded
    _addresses(context, segment)
    data, second, destination = _atomic_arguments(
        context, name, bits, decoded.data.offset, decoded.vdst.offset, bool(decoded.sc0), accumulator
    )
    helper = context.helper(
        context.instruction.name,
        "struct Wave *w, uint32_t *d, const uint64_t *addresses, const uint32_t *data, const uint32_t "
        "*second, uint64_t at",
        f"    GLOBAL_ATOMIC(w, d, addresses, data, second, {name}, uint{bits}_t, {int(segment == 'FLAT')}, at)",
    )
    context.emit(f"    {helper}(w, {destination}, at, {data}, {second}, {context.instruction.address:#x}ull);")
    return True


def emit_buffer(context: Context) -> bool:
    """MUBUF: raw and indexed buffers, atomics, loads to LDS, cache control."""
    instruction = context.instruction
    decoded, name = instruction.decoded, instruction.name
    if name in ("BUFFER_INV", "BUFFER_WBL2"):
        return True
    _, kind, suffix = name.split("_", 2)
    atomic, shape = atomic_of(suffix), shape_of(suffix)
    if (kind == "ATOMIC" and atomic is None) or (kind != "ATOMIC" and shape is None):
        return False
    context.step, context.counters = "STEP_LOAD", "COUNTS_VECTOR"
    accumulator = bool(instruction.raw >> 55 & 1)
    at = f"{instruction.address:#x}ull"
    descriptor = decoded.srsrc.offset
    index = lanes = "NULL"
    address = decoded.vaddr.offset
    with context.needing("NEED_ADDRESS"):
        context.read(descriptor, 4)
        scalar = context.scalar(decoded.soffset.offset, "u32")
        if decoded.lds:
            context.read(M0, 1)
        if decoded.idxen:
            index = context.vector_register(address, 1)
            address += 1
        if decoded.offen:
            lanes = context.vector_register(address, 1)
    context.emit("{")
    context.emit(f"    const struct Buffer buffer = buffer_of(w, {descriptor});")
    context.emit("    uint64_t at[64];")
    context.emit(
        f"    if (!buffer_offsets(w, at, buffer, {index}, {lanes}, {decoded.offset}, {at})) return WAVE_FAULTED;"
    )
    parameters = "struct Wave *w, uint32_t *d, struct Buffer buffer, const uint64_t *offsets, uint32_t scalar, "
    if kind == "ATOMIC":
        data, second, destination = _atomic_arguments(
            context,
            atomic[0],
            atomic[1],
            decoded.vdata.offset,
            decoded.vdata.offset,
            bool(decoded.sc0),
            accumulator,
        )
        helper = context.helper(
            name,
            parameters + "const uint32_t *data, const uint32_t *second, uint64_t at",
            f"    BUFFER_ATOMIC(w, d, buffer, offsets, scalar, data, second, {atomic[0]}, uint{atomic[1]}_t, at)",
        )
        context.emit(f"    {helper}(w, {destination}, buffer, at, {scalar}, {data}, {second}, {at});")
    elif decoded.lds:
        context.emit(f"    buffer_to_lds(w, buffer, at, {scalar}, {decoded.offset}, {shape_source(shape)}, {at});")
    else:
        is_store = kind == "STORE"
        data = _data(context, decoded.vdata.offset, max(1, shape[0] // 4), is_store, accumulator)
        helper = context.helper(
            name,
            parameters + "uint64_t at",
            f"    buffer_lanes(w, d, buffer, offsets, scalar, {shape_source(shape)}, {_use(is_store)}, at);",
        )
        context.emit(f"    {helper}(w, {data}, buffer, at, {scalar}, {at});")
    context.emit("}")
    context.stop_on_fault()
    return True
