"""Every plain scalar operation against AMD's pseudo-code, and hand-checked ones that touch EXEC."""

import numpy as np
import pytest
from tinygrad.runtime.autogen.amd.cdna.enum import SOP1Op, SOP2Op, SOPCOp
from tinygrad.runtime.autogen.amd.cdna.str_pcode import PCODE

from predecode.pipelines.emulation.isa.scalar_table import SCALAR_OPERATIONS
from tests.pipelines.emulation.isa.pseudo_code import Evaluator
from tests.pipelines.emulation.isa.wave_runner import kernel, load, make_group

SPECIAL = [
    0,
    1,
    2,
    31,
    32,
    33,
    63,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFF8000,
    0x00108004,
    0x001F0000,
    0x00200010,
    0xAAAAAAAA,
]


def _members():
    for enum, encode in ((SOP1Op, _encode_one), (SOP2Op, _encode_two), (SOPCOp, _encode_compare)):
        for opcode in enum:
            operation = SCALAR_OPERATIONS.get(opcode.name)
            if operation and opcode in PCODE and "K" not in operation.sources:
                yield opcode, operation, encode


def _encode_one(opcode) -> int:
    return 0b101111101 << 23 | 8 << 16 | opcode.value << 8 | 0  # s8 <- s0


def _encode_two(opcode) -> int:
    return 0b10 << 30 | opcode.value << 23 | 8 << 16 | 2 << 8 | 0  # s8 <- s0, s2


def _encode_compare(opcode) -> int:
    return 0b101111110 << 23 | opcode.value << 16 | 2 << 8 | 0


MEMBERS = list(_members())
# SCC is copied out so that many operations share a kernel: s_cselect_b32 s10, 1, 0.
SAVE_SCC = 0b10 << 30 | SOP2Op.S_CSELECT_B32.value << 23 | 10 << 16 | 128 << 8 | 129


def _move(to: int, source: int) -> int:
    return 0b101111101 << 23 | to << 16 | SOP1Op.S_MOV_B32.value << 8 | source


@pytest.fixture(scope="module")
def kernels():
    codes = [
        b"".join(word.to_bytes(4, "little") for word in (encode(opcode), SAVE_SCC)) for opcode, _, encode in MEMBERS
    ]
    return load(tuple(codes[:60])) + load(tuple(codes[60:]))


def test_scalar_operations_follow_the_pseudo_code(kernels):
    assert len(MEMBERS) > 95
    rng = np.random.default_rng(0)
    wrong, skipped = [], []
    for (opcode, operation, _), run in zip(MEMBERS, kernels, strict=False):
        for trial in range(60):
            words = [int(rng.choice(SPECIAL)) if rng.random() < 0.6 else int(rng.integers(2**32)) for _ in range(6)]
            scc = trial & 1
            registers = {
                "S0": words[0] | words[1] << 32,
                "S1": words[2] | words[3] << 32,
                "D0": words[4] | words[5] << 32,
                "SCC": scc,
                "VCC": 0,
            }
            for name, kind in zip(("S0", "S1"), [s for s in operation.sources if s != "D"], strict=False):
                if kind.endswith("32"):
                    registers[name] &= 0xFFFFFFFF
            try:
                wanted = Evaluator(PCODE[opcode].replace("SCC ?", "SCC.u1 ?"), registers).run()
            except (NotImplementedError, KeyError):
                skipped.append(opcode.name)
                break
            group = make_group()
            wave = group.waves[0]
            for register, value in zip((0, 1, 2, 3, 8, 9), words, strict=False):
                wave.sgpr[register] = value
            wave.scc = scc
            group.run(run)
            mask = 2**64 - 1 if operation.result.endswith("64") else 2**32 - 1
            got = (wave.sgpr[8] | wave.sgpr[9] << 32) & mask
            if operation.result != "-" and got != wanted["D0"] & mask:
                wrong.append(f"{opcode.name} {words}: got {got:x}, pseudo-code {wanted['D0'] & mask:x}")
                break
            if operation.condition and wave.sgpr[10] != wanted["SCC"] & 1:
                wrong.append(f"{opcode.name} {words} scc {scc}: SCC {wave.sgpr[10]}, pseudo-code {wanted['SCC'] & 1}")
                break
    assert not wrong, "\n".join(wrong)
    assert set(skipped) <= {
        "S_WQM_B32",
        "S_WQM_B64",
        "S_QUADMASK_B32",
        "S_QUADMASK_B64",
        "S_BITREPLICATE_B64_B32",
    }, skipped


def test_exec_and_immediates():
    group = make_group()
    group.run(
        kernel("""
        s_mov_b64 s[0:1], 0xff
        s_and_saveexec_b64 s[2:3], s[0:1]
        v_mov_b32 v1, 7
        s_mov_b64 exec, s[2:3]
        s_movk_i32 s4, -5
        s_addk_i32 s4, 3
        s_mulk_i32 s4, -100
        s_wqm_b64 s[6:7], 0x100
        s_bitreplicate_b64_b32 s[8:9], 5
        s_quadmask_b32 s10, 0xf010
    """)
    )
    wave = group.waves[0]
    assert (group.vgpr(1)[:8] == 7).all() and (group.vgpr(1)[8:] == 0).all()
    assert wave.sgpr[4] == 200 and wave.sgpr[6] == 0xF00 and wave.sgpr[8] == 0x33 and wave.sgpr[10] == 0b1010
