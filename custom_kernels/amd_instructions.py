"""Instructions of AMD machine code by class, for gfx942 and gfx950: enough of the encodings to walk over them.

Source: AMD "CDNA3" and "CDNA4 Instruction Set Architecture", chapter "Microcode formats". The length of an instruction
and its class follow from the format's fixed bits and its opcode; operands matter only for the literals after them.
"""

from collections.abc import Iterator

from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.kernel_record import InstructionCounts

_LITERAL, _SDWA, _DPP = 255, 249, 250
_SETREG_IMMEDIATE = 20  # SOPK: the only one with a literal
_WITH_CONSTANT = {23, 24, 36, 37}  # VOP2: v_fmamk, v_fmaak and their 16-bit forms carry a literal always
_BARRIER = 10  # SOPP
_SCALE_PREFIX = 44  # VOP3P: first half of a scaled matrix instruction
_UNSCALED_MATRIX = {45, 46}
_FIRST_MATRIX, _ACCUMULATOR_MOVES = 53, {88, 89}
# FLAT and MUBUF share these opcodes: bytes a lane loads and stores.
_LOADS = {16: 1, 17: 1, 18: 2, 19: 2, 20: 4, 21: 8, 22: 12, 23: 16, 32: 1, 33: 1, 34: 1, 35: 1, 36: 2, 37: 2}
_STORES = {24: 1, 25: 1, 26: 2, 27: 2, 28: 4, 29: 8, 30: 12, 31: 16}
_LOADS_TO_LDS = {38: 1, 39: 1, 40: 2, 41: 2, 42: 4, 125: 16, 126: 12}
_FIRST_ATOMIC, _LAST_ATOMIC = 64, 108
_GLOBAL_SEGMENTS = {0, 2}  # flat and global; 1 is scratch
_LAST_SCALAR_LOAD = 12

Instruction = tuple[str, int]
"""Class ("matrix", "load", "store", "atomic", "scalar_load", "shared_memory", "barrier" or "other"), and bytes per
lane of a load or store."""


def count_amd_instructions(code: bytes) -> InstructionCounts:
    """Counts over the machine code of one kernel, each instruction once however often it runs.

    Raises `PredecodeError` for bytes that are no CDNA3 or CDNA4 code.
    """
    return InstructionCounts.of(_instructions(code))


def _instructions(code: bytes) -> Iterator[Instruction]:
    position = 0
    while position < len(code):
        word = int.from_bytes(code[position : position + 4], "little")
        instruction, size = _classify(word, position)
        if position + size > len(code):
            raise PredecodeError(f"the kernel's code ends inside its instruction at byte {position}; rebuild it")
        position += size
        if instruction is not None:
            yield instruction


def _classify(word: int, position: int) -> tuple[Instruction | None, int]:
    """Class and bytes of the instruction that begins with ``word``; None for a mere prefix."""
    if word >> 31 == 0:
        return ("other", 0), _vector_size(word)
    if word >> 30 == 0b10:
        return _scalar(word)
    prefix = word >> 26
    if word >> 23 == 0b110100111:
        return _packed(word >> 16 & 0x7F), 8
    if prefix == 0b110100:
        return ("other", 0), 8
    if prefix == 0b110000:
        return ("scalar_load" if word >> 18 & 0xFF <= _LAST_SCALAR_LOAD else "other", 0), 8
    if prefix == 0b110110:
        return ("shared_memory", 0), 8
    if prefix == 0b110111:
        inside = word >> 14 & 3 in _GLOBAL_SEGMENTS
        return _memory(word >> 18 & 0x7F) if inside else ("other", 0), 8
    if prefix == 0b111000:
        return _buffer(word), 8
    if prefix == 0b111010:
        return ("other", 0), 8
    raise PredecodeError(f"0x{word:08x} at byte {position} is no CDNA instruction; rebuild the kernel for a CDNA chip")


def _vector_size(word: int) -> int:
    """VOP1, VOP2 and VOPC: a literal or modifiers may follow, as the first source says."""
    extended = word & 0x1FF in (_LITERAL, _SDWA, _DPP)
    return 8 if extended or word >> 25 in _WITH_CONSTANT else 4


def _scalar(word: int) -> tuple[Instruction, int]:
    if word >> 23 == 0b101111111:
        return ("barrier" if word >> 16 & 0x7F == _BARRIER else "other", 0), 4
    sources = (word & 0xFF, word >> 8 & 0xFF)
    if word >> 23 == 0b101111101:
        sources = sources[:1]
    elif word >> 28 == 0b1011 and word >> 23 != 0b101111110:
        return ("other", 0), 8 if word >> 23 & 0x1F == _SETREG_IMMEDIATE else 4
    return ("other", 0), 8 if _LITERAL in sources else 4


def _packed(opcode: int) -> Instruction | None:
    if opcode == _SCALE_PREFIX:
        return None
    matrix = opcode in _UNSCALED_MATRIX or (opcode >= _FIRST_MATRIX and opcode not in _ACCUMULATOR_MOVES)
    return ("matrix" if matrix else "other", 0)


def _memory(opcode: int) -> Instruction:
    loads = _LOADS | _LOADS_TO_LDS
    if opcode in loads:
        return "load", loads[opcode]
    if opcode in _STORES:
        return "store", _STORES[opcode]
    return "atomic" if _FIRST_ATOMIC <= opcode <= _LAST_ATOMIC else "other", 0


def _buffer(word: int) -> Instruction:
    opcode = word >> 18 & 0x7F
    # 38 to 42 are cache control and formatted accesses here; a load to LDS is a plain load with its bit set.
    return ("other", 0) if opcode in _LOADS_TO_LDS else _memory(opcode)
