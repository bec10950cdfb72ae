"""MFMA and SMFMAC instructions."""

from __future__ import annotations

import re

from .context import FIRST_VGPR, Context

# Operand type in the mnemonic -> (unpacking function, bits per element, C element type)
_PLAIN = {
    "F32": ("take_f32", 32, "float"),
    "F16": ("take_f16", 16, "float"),
    "BF16": ("take_bf16", 16, "float"),
    "I8": ("take_i8", 8, "int32_t"),
    "FP8": ("take_{}_e4m3", 8, "float"),
    "BF8": ("take_{}_e5m2", 8, "float"),
}
# f8f6f4 forms: CBSZ and BLGP choose the format of A and B.
_SELECTED = {0: ("FP8", 8), 1: ("BF8", 8), 2: ("FP6", 6), 3: ("BF6", 6), 4: ("FP4", 4)}
_DECODERS = {"FP8": "ocp_e4m3", "BF8": "ocp_e5m2", "FP6": "ocp_e2m3", "BF6": "ocp_e3m2", "FP4": "ocp_e2m1"}
_SPARSE = re.compile(r"V_SMFMAC_(?:F32|I32)_(\d+)X\d+X(\d+)_(\w+)")
_NAME = re.compile(r"V_MFMA_(?:SCALE_)?(F32|I32|F64)_(\d+)X\d+X(\d+)(?:_(\d+)B)?_(\w+)")


def _operand(context: Context, code: int, count: int, accumulator: bool) -> str:
    if code < FIRST_VGPR:
        raise context.instruction.unsupported("a scalar matrix operand")
    return context.vector_register(code, count, accumulator)


def _accumulator_input(context: Context, code: int, count: int, accumulator: bool, kind: str) -> tuple[str, str]:
    """(pointer or NULL, constant) of the C operand."""
    if code >= FIRST_VGPR:
        return context.vector_register(code, count, accumulator), "0"
    return "NULL", context.scalar(code, kind)


def _acc_bits(context: Context) -> tuple[bool, bool, bool]:
    decoded = context.instruction.decoded
    return bool(decoded.acc & 1), bool(decoded.acc >> 1 & 1), bool(decoded.acc_cd)


def _fp8_of(context: Context) -> str:
    return "fnuz" if context.arch == "gfx942" else "ocp"


def emit_matrix(context: Context) -> bool:
    """V_MFMA_* and V_SMFMAC_*; False when the opcode is not covered."""
    sparse = _SPARSE.fullmatch(context.instruction.name)
    if sparse:
        types = sparse[3].split("_")
        _emit_sparse(context, int(sparse[1]), int(sparse[2]), types[0], types[-1])
        return True
    match = _NAME.fullmatch(context.instruction.name)
    if match is None:
        return False
    result, size, depth, blocks, operands = (
        match[1],
        int(match[2]),
        int(match[3]),
        int(match[4] or 1),
        match[5],
    )
    context.step = "STEP_MATRIX"
    context.step_immediate = size if result != "F64" and blocks == 1 else 1
    context.emit(f"w->counters.matrix_operations += {2 * size * size * depth * blocks};")
    if result == "F64":
        _emit_f64(context, size)
    elif operands == "F8F6F4":
        _emit_selected(context, size, depth)
    else:
        types = operands.split("_")
        if any(kind not in _PLAIN for kind in types):
            return False
        _emit_plain(context, result, size, depth, blocks, types[0], types[-1])
    return True


def _emit_plain(context, result, size, depth, blocks, left_type, right_type) -> None:
    decoded = context.instruction.decoded
    if decoded.cbsz or decoded.abid or decoded.blgp:
        raise context.instruction.unsupported("broadcast or permutation of matrix operands (cbsz, abid, blgp)")
    fp8 = _fp8_of(context)
    per_lane = size * depth * blocks // 64
    take_left, bits, element = _PLAIN[left_type]
    take_right = _PLAIN[right_type][0]
    registers = max(1, per_lane * bits // 32)
    acc_a, acc_b, acc_c = _acc_bits(context)
    left = _operand(context, decoded.src0.offset, registers, acc_a)
    right = _operand(context, decoded.src1.offset, registers, acc_b)
    count = size * size * blocks // 64
    third, constant = _accumulator_input(
        context, decoded.src2.offset, count, acc_c, "f32" if result == "F32" else "u32"
    )
    destination = context.vector_destination(decoded.vdst.offset, count, acc_c)
    multiply = "multiply_f32" if element == "float" else "multiply_i8"
    form = f"((struct MatrixForm){{{size}, {blocks}, {depth}, {per_lane}}})"
    body = (
        f"    MFMA_BODY({element}, {take_left.format(fp8)}, {take_right.format(fp8)}, {multiply}, {form}, "
        f"d, a, b, c, constant);"
    )
    helper = context.helper(
        context.instruction.name,
        "uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t constant",
        body,
    )
    context.emit(f"{helper}({destination}, {left}, {right}, {third}, {constant});")


def _emit_sparse(context: Context, size: int, depth: int, left_type: str, right_type: str) -> None:
    """D += A * B, where A holds two of every four k and a register says which."""
    decoded = context.instruction.decoded
    if decoded.cbsz:
        raise context.instruction.unsupported("a shared index set of a sparse matrix operand (cbsz)")
    fp8 = _fp8_of(context)
    take_left, bits, element = _PLAIN[left_type]
    take_right = _PLAIN[right_type][0]
    kept, outputs = size * depth // 128, size * size // 64
    sets = 16 // kept
    context.step = "STEP_MATRIX"
    context.step_immediate = size
    context.emit(f"w->counters.matrix_operations += {2 * size * size * depth};")
    acc_a, acc_b, acc_d = _acc_bits(context)
    left = _operand(context, decoded.src0.offset, kept * bits // 32, acc_a)
    right = _operand(context, decoded.src1.offset, 2 * kept * bits // 32, acc_b)
    index = _operand(context, decoded.src2.offset, 1, False)
    third = _operand(context, FIRST_VGPR + decoded.vdst.offset % FIRST_VGPR, outputs, acc_d)
    destination = context.vector_destination(decoded.vdst.offset, outputs, acc_d)
    multiply = "multiply_f32" if element == "float" else "multiply_i8"
    helper = context.helper(
        context.instruction.name,
        "uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c, const uint32_t *index, int set",
        f"    SMFMAC_BODY({element}, {take_left.format(fp8)}, {take_right.format(fp8)}, {multiply}, {size}, {depth}, "
        f"{kept}, d, a, b, c, index, set);",
    )
    context.emit(f"{helper}({destination}, {left}, {right}, {third}, {index}, {decoded.abid % sets});")


def _emit_f64(context: Context, size: int) -> None:
    decoded = context.instruction.decoded
    acc_a, acc_b, acc_c = _acc_bits(context)
    left = _operand(context, decoded.src0.offset, 2, acc_a)
    right = _operand(context, decoded.src1.offset, 2, acc_b)
    count = 8 if size == 16 else 2
    third, constant = _accumulator_input(context, decoded.src2.offset, count, acc_c, "f64")
    destination = context.vector_destination(decoded.vdst.offset, count, acc_c)
    context.emit(f"mfma_f64({destination}, {left}, {right}, {third}, as_f64({constant}), {size}, {decoded.blgp});")


def _emit_selected(context: Context, size: int, depth: int) -> None:
    """The f8f6f4 forms of gfx950, with or without block scales."""
    decoded = context.instruction.decoded
    if context.arch == "gfx942":
        raise context.instruction.unsupported("gfx942 has no such matrix instruction")
    formats = []
    for selector in (decoded.cbsz, decoded.blgp):
        if selector not in _SELECTED:
            raise context.instruction.unsupported(f"matrix operand format {selector}")
        formats.append(_SELECTED[selector])
    if (formats[0][1] == 8) != (formats[1][1] == 8):
        raise context.instruction.unsupported(
            "8-bit with smaller matrix operands: their common lane layout is not known"
        )
    scaled = context.instruction.format == "VOP3PX2"
    acc_a, acc_b, acc_c = _acc_bits(context)
    left = _operand(context, decoded.src0.offset, formats[0][1], acc_a)
    right = _operand(context, decoded.src1.offset, formats[1][1], acc_b)
    count = size * size // 64
    third, constant = _accumulator_input(context, decoded.src2.offset, count, acc_c, "f32")
    destination = context.vector_destination(decoded.vdst.offset, count, acc_c)
    scales = ["NULL", "NULL"]
    bytes_chosen = [0, 0]
    if scaled:
        for i, code in enumerate((decoded.scale_src0, decoded.scale_src1)):
            if code >= FIRST_VGPR:
                scales[i] = context.vector_register(code, 1)
            else:
                context.emit(f"{{ uint32_t scale{i}[64]; LANES scale{i}[l] = {context.scalar(code, 'u32')};")
                scales[i] = f"scale{i}"
            bytes_chosen[i] = (decoded.opsel >> i & 1) | (decoded.opsel_hi >> i & 1) << 1
    body = (
        f"    MFMA_SELECTED(d, a, b, c, constant, {size}, {depth}, {_DECODERS[formats[0][0]]}, "
        f"{formats[0][1]}, {_DECODERS[formats[1][0]]}, {formats[1][1]}, scale_a, {bytes_chosen[0]}, "
        f"scale_b, {bytes_chosen[1]});"
    )
    helper = context.helper(
        context.instruction.name,
        "uint32_t *d, const uint32_t *a, const uint32_t *b, const uint32_t *c, uint32_t constant, "
        "const uint32_t *scale_a, const uint32_t *scale_b",
        body,
    )
    context.emit(f"{helper}({destination}, {left}, {right}, {third}, {constant}, {scales[0]}, {scales[1]});")
    for scale in scales:
        if scale.startswith("scale"):
            context.emit("}")
