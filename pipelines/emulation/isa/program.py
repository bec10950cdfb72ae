"""Machine code as a control-flow graph: which instructions a kernel can reach and where it can jump.

An address is a byte offset into the code: where the code lies in memory is known only when it runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from tinygrad.renderer.amd import decode_inst
from tinygrad.renderer.amd.dsl import Inst, SrcField

from predecode.pipelines.errors import PredecodeError


class UnsupportedInstruction(PredecodeError):
    """An instruction that the translator does not cover: names mnemonic, encoding and address."""

    def __init__(self, name: str, encoding: bytes, address: int, why: str = "it is not covered"):
        words = " ".join(f"{int.from_bytes(encoding[i : i + 4], 'little'):08x}" for i in range(0, len(encoding), 4))
        super().__init__(f"the emulated device cannot run {name} ({words}) at code+0x{address:x}: {why}")
        self.name, self.address = name, address


@dataclass
class Instruction:
    """One decoded instruction.  `name` has no encoding suffix: V_ADD_F32, not V_ADD_F32_E32."""

    address: int
    decoded: Inst
    name: str
    size: int
    encoding: bytes

    @property
    def format(self) -> str:
        return type(self.decoded).__name__

    @property
    def raw(self) -> int:
        return self.decoded._raw

    @property
    def next_address(self) -> int:
        return self.address + self.size

    def unsupported(self, why: str = "it is not covered") -> UnsupportedInstruction:
        return UnsupportedInstruction(self.name.lower(), self.encoding, self.address, why)

    def text(self) -> str:
        """Mnemonic and operands, then the modifiers that are not zero."""
        operands, modifiers = [], []
        for field_name, field_type in self.decoded._fields:
            if field_name in ("op", "encoding", "seg", "x2encoding"):
                continue
            value = getattr(self.decoded, field_name)
            if isinstance(field_type, SrcField):
                if field_name in self.decoded.operands or field_name.lstrip("v") in self.decoded.operands:
                    operands.append(value.fmt())
            elif not isinstance(value, int):
                operands.append(value.fmt())
            elif value:
                modifiers.append(f"{field_name}:{value:#x}" if value > 9 else f"{field_name}:{value}")
        return " ".join([self.name.lower(), ", ".join(operands), *modifiers]).replace("  ", " ").strip()


_LOAD_SCALE = 0b110100111 << 7 | 44  # v_mfma_ld_scale_b32, the first half of a scaled matrix instruction
_CONDITIONAL = (
    "S_CBRANCH_SCC0",
    "S_CBRANCH_SCC1",
    "S_CBRANCH_VCCZ",
    "S_CBRANCH_VCCNZ",
    "S_CBRANCH_EXECZ",
    "S_CBRANCH_EXECNZ",
)
_YIELDING = ("S_BARRIER", "S_SLEEP")
ENDING = ("S_ENDPGM", "S_BRANCH", "S_SETPC_B64", "S_TRAP")
"""Instructions behind which a wave does not go on."""


def branch_target(instruction: Instruction) -> int:
    """The target of s_branch, s_cbranch_* or s_call_b64."""
    offset = instruction.decoded.simm16
    return instruction.next_address + 4 * (offset - 0x10000 if offset & 0x8000 else offset)


def is_backward_branch(instruction: Instruction) -> bool:
    """A branch that closes a loop: where a wave that spins without s_sleep lets others run."""
    name = instruction.name
    return (name in _CONDITIONAL or name == "S_BRANCH") and branch_target(instruction) <= instruction.address


@dataclass
class Program:
    """The reachable instructions by address, and the addresses that need a label."""

    instructions: dict[int, Instruction] = field(default_factory=dict)
    leaders: set[int] = field(default_factory=set)
    dynamic_targets: set[int] = field(default_factory=set)

    def has_dynamic_jumps(self) -> bool:
        return any(i.name in ("S_SETPC_B64", "S_SWAPPC_B64") for i in self.instructions.values())


def _decode(code: bytes, address: int) -> Instruction:
    if not 0 <= address <= len(code) - 4:
        raise PredecodeError(
            f"the kernel's control flow leaves its code: code{address:+#x} is outside the {len(code):#x} bytes of "
            f"code; the code object is damaged or a jump is not understood"
        )
    # Only the scaled matrix instructions are longer than 8 bytes; the decoder would take others for one of
    # them.
    first_word = int.from_bytes(code[address : address + 4], "little")
    window = code[address : address + (16 if first_word >> 16 == _LOAD_SCALE else 8)]
    try:
        decoded = decode_inst(window, "cdna")
        name = decoded.op.name.removesuffix("_E32").removesuffix("_E64")
    except (ValueError, AssertionError, KeyError) as error:
        raise UnsupportedInstruction("an unknown encoding", window[:8], address, str(error)) from error
    size = decoded.size()
    if len(window) < size:
        raise UnsupportedInstruction(name.lower(), window, address, "the code ends inside it")
    return Instruction(address, decoded, name, size, window[:size])


def _computed_targets(instructions: dict[int, Instruction]) -> set[int]:
    """Addresses formed as s_getpc_b64 plus literals (s_add_u32, s_addc_u32): callees and far branch
    targets."""
    targets = set()
    pairs: dict[int, int] = {}
    low_sums: dict[int, int] = {}
    for address in sorted(instructions):
        instruction = instructions[address]
        decoded = instruction.decoded
        if instruction.name == "S_GETPC_B64":
            pairs[decoded.sdst.offset] = instruction.next_address
        elif instruction.name == "S_ADD_U32" and decoded.ssrc0.offset in pairs and decoded.ssrc1.offset == 255:
            low_sums[decoded.sdst.offset] = pairs[decoded.ssrc0.offset] + decoded.literal
        elif instruction.name == "S_ADDC_U32" and decoded.sdst.offset - 1 in low_sums:
            high = decoded.ssrc1.offset
            carry = decoded.literal if high == 255 else (high - 128 if high <= 192 else 192 - high)
            base = low_sums.pop(decoded.sdst.offset - 1)
            targets.add((base + (carry << 32)) & 0xFFFFFFFFFFFFFFFF)
            targets.add(base & 0xFFFFFFFF | (base - (1 << 32)) & ~0xFFFFFFFF if carry == -1 else base)
    return targets


def read_program(code: bytes, entry: int) -> Program:
    """Follow the control flow from `entry` (an address).  Callees are found through s_getpc_b64
    arithmetic."""
    program = Program(leaders={entry})
    work = [entry]
    while work:
        while work:
            address = work.pop()
            while address not in program.instructions:
                instruction = _decode(code, address)
                program.instructions[address] = instruction
                name = instruction.name
                if name in _CONDITIONAL or name in ("S_BRANCH", "S_CALL_B64"):
                    target = branch_target(instruction)
                    program.leaders.add(target)
                    work.append(target)
                if name in ("S_SWAPPC_B64", "S_CALL_B64"):
                    program.dynamic_targets.add(instruction.next_address)
                if name in _CONDITIONAL or name in _YIELDING or name in ("S_SWAPPC_B64", "S_CALL_B64"):
                    program.leaders.add(instruction.next_address)
                if name in ENDING:
                    break
                address = instruction.next_address
        for target in _computed_targets(program.instructions):
            inside = target < len(code) and target % 4 == 0
            if inside and target not in program.dynamic_targets:
                program.dynamic_targets.add(target)
                work.append(target)
    program.leaders |= program.dynamic_targets
    return program
