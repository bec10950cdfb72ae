"""What the emitters of one kernel share: output lines, generated helpers and the operands of the
instruction at hand."""

from __future__ import annotations

import struct
from contextlib import contextmanager
from dataclasses import dataclass, field

from .program import Instruction

VCC, M0, EXEC, LITERAL, FIRST_VGPR, FIRST_AGPR = 106, 124, 126, 255, 256, 512
SCC_REGISTER = 128
_FLOATS = {
    240: 0.5,
    241: -0.5,
    242: 1.0,
    243: -1.0,
    244: 2.0,
    245: -2.0,
    246: 4.0,
    247: -4.0,
    248: 0.15915494309189532,
}


@dataclass
class Access:
    """Registers that an instruction reads or writes: `register` is 0..127 scalar, 128 SCC, 256.. vector."""

    register: int
    count: int
    need: str = "NEED_NOTHING"


@dataclass
class Context:
    """Collects the C of one kernel.

    `lines` is the body of the function, `helpers` maps a helper's parameters and body to its name."""

    arch: str
    strict: bool
    lines: list[str] = field(default_factory=list)
    helpers: dict[tuple[str, str, str], str] = field(default_factory=dict)
    instruction: Instruction | None = None
    reads: list[Access] = field(default_factory=list)
    writes: list[Access] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    step: str = "STEP_LANES"
    step_immediate: int = 0
    counters: str = "0"
    needed: str = "NEED_NOTHING"
    first_line: int = 0
    split: list[tuple[list[Access], list[Access]]] = field(default_factory=list)

    def begin(self, instruction: Instruction) -> None:
        self.instruction = instruction
        self.reads, self.writes, self.split = [], [], []
        self.step, self.step_immediate, self.counters = "STEP_LANES", 0, "0"
        self.first_line = len(self.lines)

    @contextmanager
    def needing(self, need: str):
        """Operands read inside must be defined: NEED_ADDRESS, NEED_STORED or NEED_CONDITION (checks.h)."""
        self.needed = need
        yield
        self.needed = "NEED_NOTHING"

    def read(self, register: int, count: int) -> None:
        self.reads.append(Access(register, count, self.needed))

    def read_nothing(self) -> None:
        """A constant where a step's operands are counted by position."""
        self.reads.append(Access(EXEC, 0))

    def split_low_from_low(self) -> None:
        """The low word of a 64-bit result depends on the low words of the operands, all else on all of
        them."""
        wide = max(self.writes, key=lambda access: access.count)
        low_reads = [Access(a.register, min(a.count, 1), a.need) for a in self.reads]
        others = [Access(wide.register + 1, 1), *(a for a in self.writes if a is not wide)]
        self.split = [(self.reads, others), (low_reads, [Access(wide.register, 1)])]

    def split_by_word(self) -> None:
        """Each word of a 64-bit result depends on the same word of the 64-bit operands, and on the others."""
        wide = max(self.writes, key=lambda access: access.count)
        for word in range(2):
            reads = [Access(a.register + word, 1, a.need) if a.count == 2 else a for a in self.reads]
            self.split.append((reads, [Access(wide.register + word, 1)]))

    def finish(self) -> None:
        """In strict mode, put the check of the instruction's operands before its C."""
        if not self.strict or not (self.reads or self.writes or self.step in ("STEP_WAIT", "STEP_BARRIER")):
            return
        check = f"{'strict_pair' if self.split else 'strict_step'}(w, &steps[{len(self.steps)}])"
        for reads, writes in self.split or [(self.reads, self.writes)]:
            operands = ", ".join(f"{{{a.register}, {a.count}, {a.need}}}" for a in (*reads, *writes))
            self.steps.append(
                f"    {{{self.instruction.address:#x}ull, {self.step_immediate:#x}u, {self.step}, "
                f"{self.counters}, "
                f"{len(reads)}, {len(writes)}, {{{operands}}}}},"
            )
        self.lines.insert(self.first_line, f"    if ({check}) return WAVE_FAULTED;")

    def resume_number(self, address: int) -> str:
        """What `w->resume` holds for a wave that goes on at `address`; 0 is a wave that has not begun."""
        return f"{address + 1:#x}u"

    def run_time_address(self, address: int) -> str:
        """C for where the instruction at `address` lies in device memory."""
        return f"w->code_address + {address:#x}u"

    def step_table(self) -> str:
        if not self.steps:
            return ""
        return "\n".join(["static const struct Step steps[] = {", *self.steps, "};"])

    def emit(self, line: str) -> None:
        self.lines.append("    " + line)

    def helper(self, stem: str, parameters: str, body: str, result: str = "void") -> str:
        """The name of a helper function with this body, defined once per kernel."""
        key = (result, parameters, body)
        if key not in self.helpers:
            self.helpers[key] = f"{stem.lower()}_{len(self.helpers)}"
        return self.helpers[key]

    def helper_source(self) -> str:
        return "\n".join(
            f"OPERATION {result} {name}({parameters})\n{{\n{body}\n}}"
            for (result, parameters, body), name in self.helpers.items()
        )

    # Operands

    def literal(self) -> int:
        value = getattr(self.instruction.decoded, "literal", None)
        if value is None:
            raise self.instruction.unsupported("it takes a literal in an encoding that has none")
        return value

    def constant(self, code: int, kind: str) -> int:
        """The bits of an inline constant or literal, as an operand of type `kind` reads them."""
        wide = kind.endswith("64")
        if code == LITERAL:
            return self.literal() << 32 if kind == "f64" else self.literal()
        if 128 <= code <= 192:
            return code - 128
        if 193 <= code <= 208:
            return (192 - code) & (0xFFFFFFFFFFFFFFFF if wide else 0xFFFFFFFF)
        if code in _FLOATS:
            layout = "<d" if wide else "<e" if kind.endswith("16") else "<f"
            return int.from_bytes(struct.pack(layout, _FLOATS[code]), "little")
        raise self.instruction.unsupported(f"operand {code} is not covered")

    def scalar(self, code: int, kind: str) -> str:
        """C for a scalar source: an SGPR, a special register or a constant.  32 or 64 bits wide by `kind`."""
        wide = kind.endswith("64")
        if code < 128:
            self.read(code, 2 if wide else 1)
            return f"get_64(w, {code})" if wide else f"w->sgpr[{code}]"
        if code == 251:
            self.read(VCC, 2)
            return f"(get_64(w, {VCC}) == 0)"
        if code == 252:
            return "(exec_of(w) == 0)"
        if code == 253:
            self.read(SCC_REGISTER, 1)
            return "w->scc"
        if code in (235, 237):
            aperture = "SHARED_APERTURE" if code == 235 else "PRIVATE_APERTURE"
            return aperture if wide else f"(uint32_t)({aperture} >> 32)"
        suffix = "ull" if wide else "u"
        return f"{self.constant(code, kind):#x}{suffix}"

    def vector_register(self, code: int, count: int, accumulator: bool = False) -> str:
        """C pointer to a VGPR (code 256..511) or, with `accumulator`, to the AGPR of that number, being
        read."""
        register = code - FIRST_VGPR + (256 if accumulator else 0)
        self.read(256 + register, count)
        return f"w->vgpr[{register}]"

    def vector_destination(self, code: int, count: int, accumulator: bool = False) -> str:
        register = code - FIRST_VGPR + (256 if accumulator else 0)
        self.writes.append(Access(256 + register, count))
        return f"w->vgpr[{register}]"

    def write_scalar(self, code: int, value: str, wide: bool) -> None:
        """Assign an SGPR (pair).  Writing EXEC spreads it over the lanes."""
        if code > 127:
            raise self.instruction.unsupported(f"destination {code} is not a scalar register")
        self.writes.append(Access(code, 2 if wide else 1))
        self.emit(f"set_{64 if wide else 32}(w, {code}, {value});")
        if code in (EXEC, EXEC + 1):
            self.emit("spread_exec(w);")

    def write_condition(self, value: str) -> None:
        self.writes.append(Access(SCC_REGISTER, 1))
        self.emit(f"w->scc = ({value}) ? 1 : 0;")

    def stop_on_fault(self) -> None:
        self.emit("if (w->faulted) return WAVE_FAULTED;")
