"""Generated C helpers: one loop over the lanes per opcode, operand kinds and modifiers."""

from __future__ import annotations

from dataclasses import dataclass

from .context import Context
from .vector_table import LaneOperation

_C_TYPES = {
    "f32": "float",
    "f16": "float",
    "f64": "double",
    "u32": "uint32_t",
    "b32": "uint32_t",
    "raw_f32": "uint32_t",
    "raw_f16": "uint32_t",
    "i32": "int32_t",
    "u16": "uint16_t",
    "i16": "int16_t",
    "u64": "uint64_t",
    "i64": "int64_t",
    "bit": "uint32_t",
    "vcc": "uint32_t",
    "mode": "uint32_t",
}
_ENCODE = {"f32": "bits_f32({})", "f64": "bits_f64({})", "f16": "bits_f16({})"}
_HALVES = ("f16", "u16", "i16", "raw_f16")
_NAMES = "abce"
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
        return [
            f"const uint64_t bits = (uint64_t){encoded};",
            "KEEP(to, l, bits);",
            "KEEP(to + 64, l, bits >> 32);",
        ]
    if kind in _HALVES:
        if high:
            return [f"KEEP(to, l, (to[l] & 0xffff) | (uint32_t)(uint16_t){encoded} << 16);"]
        kept = "(to[l] & 0xffff0000u) | " if keeps_half else ""
        return [f"KEEP(to, l, {kept}(uint16_t){encoded});"]
    return [f"KEEP(to, l, {encoded});"]


def apply_output_modifiers(context: Context, kind: str, expression: str, modifiers: Modifiers) -> str:
    """The C expression with output scaling and clamping: to [0, 1], or to the range of an integer type."""
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
    """Define the helper for this opcode with these operand kinds; its parameters are (to, m, exec, s0, s1,
    ...)."""
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
            value = (
                modifiers.select
                if kind == "SELECT"
                else modifiers.scale << 6 | modifiers.absolute << 3 | modifiers.negate
            )
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
        expression = apply_output_modifiers(context, operation.result, expression, modifiers)
    integer_clamp = widen and not table
    body.append(
        f"const {'int64_t' if integer_clamp else _C_TYPES[operation.result]} r = "
        f"({'int64_t' if integer_clamp else _C_TYPES[operation.result]})({expression});"
    )
    if operation.carry:
        body.append(f"carries |= (uint64_t)(({operation.carry}) != 0) << l;")
    body += store_result(operation.result, operation.keeps_half, high)
    lines = ["    uint64_t carries = 0;"] if operation.carry else []
    lines += ["    LANES {", *("        " + line for line in body), "    }"]
    lines.append("    return carries & exec;" if operation.carry else "    (void)exec;")
    return context.helper(
        operation.name, ", ".join(parameters), "\n".join(lines), "uint64_t" if operation.carry else "void"
    )


def _mask_helper(context, operation, parameters, body, expression) -> str:
    lines = [
        "    uint64_t mask = 0;",
        "    (void)to, (void)m;",
        "    LANES {",
        *("        " + line for line in body),
        f"        mask |= (uint64_t)(({expression}) != 0) << l;",
        "    }",
        "    return mask & exec;",
    ]
    return context.helper(operation.name, ", ".join(parameters), "\n".join(lines), "uint64_t")
