"""Machine code of one gfx942/gfx950 kernel -> C source that runs it, a wave at a time (see wave.h)."""

from __future__ import annotations

import re

from .context import Context
from .local_memory import emit_local_memory
from .matrix import emit_matrix
from .packed import emit_packed
from .program import (
    ENDING,
    Instruction,
    Program,
    UnsupportedInstruction,
    branch_target,
    is_backward_branch,
    read_program,
)
from .scalar import emit_control, emit_exec_operation, emit_scalar_memory, emit_scalar_operation
from .special import emit_special
from .vector import emit_vector_operation
from .vector_memory import emit_buffer, emit_flat

__all__ = ["UnsupportedInstruction", "mangled_name", "translate_kernel"]

_FP8 = {"gfx942": "fnuz", "gfx950": "ocp"}
_COUNTERS = ("salu", "smem", "valu", "mfma", "lds", "vmem", "branch", "other")


def mangled_name(name: str) -> str:
    """The C name of a kernel's function: `kernel_` and the symbol with everything but letters and digits as
    `_`."""
    return "kernel_" + re.sub(r"[^0-9A-Za-z]", "_", name)


def _class_of(instruction: Instruction) -> str:
    """The counter an instruction belongs to."""
    form, name = instruction.format, instruction.name
    if form.startswith("SOP"):
        if name.startswith(("S_CBRANCH", "S_BRANCH", "S_SETPC", "S_SWAPPC", "S_CALL")):
            return "branch"
        return "other" if form == "SOPP" else "salu"
    if form == "SMEM":
        return "smem"
    if form == "DS":
        return "lds"
    if form in ("FLAT", "GLOBAL", "SCRATCH", "MUBUF"):
        return "vmem"
    return "mfma" if name.startswith(("V_MFMA", "V_SMFMAC")) else "valu"


def _emit_instruction(context: Context) -> bool:
    form, name = context.instruction.format, context.instruction.name
    if form.startswith("SOP"):
        return emit_scalar_operation(context) or emit_exec_operation(context) or emit_control(context)
    if form == "SMEM":
        return emit_scalar_memory(context)
    if form == "DS":
        return emit_local_memory(context)
    if form in ("FLAT", "GLOBAL", "SCRATCH"):
        return emit_flat(context)
    if form == "MUBUF":
        return emit_buffer(context)
    if form.startswith("VOP3P"):
        if name.startswith(("V_MFMA", "V_SMFMAC")):
            return emit_matrix(context)
        return emit_packed(context) or emit_special(context)
    return emit_vector_operation(context) or emit_special(context)


def _count_block(context: Context, block: list[Instruction]) -> None:
    totals = dict.fromkeys(_COUNTERS, 0)
    for instruction in block:
        totals[_class_of(instruction)] += 1
    context.emit(" ".join(f"w->counters.{name} += {count};" for name, count in totals.items() if count))


def _blocks(program: Program) -> list[list[Instruction]]:
    """Runs of instructions between leaders, in address order."""
    blocks: list[list[Instruction]] = []
    previous = None
    for address in sorted(program.instructions):
        instruction = program.instructions[address]
        if previous is None or address in program.leaders or previous.next_address != address:
            blocks.append([])
        blocks[-1].append(instruction)
        previous = instruction
    return blocks


def _emit_body(context: Context, program: Program) -> set[int]:
    """Fill context.lines; return the addresses at which a wave can resume."""
    resumes = set()
    for block in _blocks(program):
        if block[0].address in program.leaders:
            context.lines.append(f"L_{block[0].address:x}:;")
        _count_block(context, block)
        for instruction in block:
            context.begin(instruction)
            context.emit(f"/* {instruction.address:x}: {instruction.text()} */")
            if not _emit_instruction(context):
                raise instruction.unsupported()
            context.finish()
            if instruction.name in ("S_BARRIER", "S_SLEEP"):
                resumes.add(instruction.next_address)
            elif is_backward_branch(instruction):
                resumes.add(branch_target(instruction))
        last = block[-1]
        if last.next_address not in program.instructions and last.name not in ENDING:
            raise last.unsupported("control flow runs past it into bytes that are not code")
    return resumes


def _dispatch(program: Program) -> list[str]:
    if not program.has_dynamic_jumps():
        return []
    cases = [f"    case {target:#x}ull: goto L_{target:x};" for target in sorted(program.dynamic_targets)]
    return [
        "dispatch:",
        "    switch (jump - w->code_address) {",
        *cases,
        "    default:",
        '        fault(w, "jump to an address that was not found in the code", -1, jump_from);',
        "        return WAVE_FAULTED;",
        "    }",
    ]


def _text_function(program: Program, symbol: str) -> str:
    instructions = sorted(program.instructions.items())
    entries = "\n".join(f'    {{{address:#x}, "{instruction.text()}"}},' for address, instruction in instructions)
    return (
        f"static const struct InstructionText texts[] = {{\n{entries}\n}};\n\n"
        f"EXPORT const char *{symbol}_text(uint64_t code_offset)\n{{\n"
        f"    return text_at(texts, {len(program.instructions)}, code_offset);\n}}"
    )


def translate_kernel(code: bytes, entry: int, name: str, arch: str, strict: bool) -> str:
    """C source defining `int NAME(struct Wave *)` and `const char *NAME_text(uint64_t)`, NAME being mangled_name(name).

    `code` is the text section; the kernel begins `entry` bytes into it.  The C does not depend on where the code
    is loaded.  `strict` adds the checks of strict mode.  Raises UnsupportedInstruction for an instruction that is
    not covered, and PredecodeError for code that cannot be followed."""
    if arch not in _FP8:
        raise ValueError(f"arch must be one of {sorted(_FP8)}, not {arch!r}")
    program = read_program(code, entry)
    context = Context(arch=arch, strict=strict)
    resumes = _emit_body(context, program)
    symbol = mangled_name(name)
    fp8 = _FP8[arch]
    resume_cases = "\n".join(
        f"    case {context.resume_number(address)}: goto L_{address:x};" for address in sorted(resumes)
    )
    lines = [
        f"/* {name} for {arch} */",
        f"#define STRICT {int(strict)}",
        '#include "runtime.h"',
        *(
            f"#define {macro}{kind} {function}{fp8}_{form}"
            for macro, function in (("FROM_", ""), ("TO_", "to_"))
            for kind, form in (("FP8", "e4m3"), ("BF8", "e5m2"))
        ),
        "",
        context.helper_source(),
        context.step_table(),
        "",
        f"static {'UNOPTIMIZED ' if strict else ''}int run_wave(struct Wave *w)",
        "{",
        "    uint64_t jump = 0, jump_from = 0;",
        "    (void)jump, (void)jump_from;",
        "    if (w->faulted) return WAVE_FAULTED;",
        "    switch (w->resume) {",
        "    case 0: strict_begin(w); break;" if strict else "    case 0: break;",
        resume_cases,
        '    default: fault(w, "resumed at an unknown place", -1, 0); return WAVE_FAULTED;',
        "    }",
        f"    goto L_{entry:x};",
        *context.lines,
        *_dispatch(program),
        "}",
        "",
        f"EXPORT int {symbol}(struct Wave *w) {{ return run_with_mode(w, run_wave); }}",
        "",
        _text_function(program, symbol),
        "",
    ]
    return "\n".join(lines)
