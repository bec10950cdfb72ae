"""Static instruction counts, against another decoder on real kernels, and encoding by encoding."""

from collections import Counter

import pytest

from predecode.custom_kernels.amd_instructions import count_amd_instructions
from predecode.custom_kernels.ptx_instructions import count_ptx_instructions
from predecode.custom_kernels.targets import GFX942, GFX950
from predecode.custom_kernels.toolchain import Toolchain
from predecode.export.inject import inject
from predecode.export.trace import Program, trace
from predecode.pipelines.errors import PredecodeError
from tests.custom_kernels.code_of_kernel import machine_code
from tests.custom_kernels.compiled_cases import OpCall, load, op_names, tensors_of

SIZES = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2}
SIZES |= {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}


def decoded_counts(code: bytes) -> Counter:
    """The same counts by the names of tinygrad's decoder."""
    from tinygrad.renderer.amd import decode_inst

    position, counts = 0, Counter()
    while position < len(code):
        scaled = int.from_bytes(code[position : position + 4], "little") >> 16 == 0xD3AC
        instruction = decode_inst(code[position : position + (16 if scaled else 8)], "cdna")
        position += instruction.size()
        counts["all"] += 1
        counts[named(instruction.op.name.lower())] += 1
    return counts


def named(name: str) -> str:
    if "mfma" in name or "smfmac" in name:
        return "matrix"
    unit, _, rest = name.partition("_")
    kind, _, width = rest.partition("_")
    if unit in ("global", "flat", "buffer") and kind in ("load", "store"):
        return f"{kind} {SIZES[width.removeprefix('lds_').split('_')[0]]}"
    if unit in ("global", "flat", "buffer") and kind == "atomic":
        return "atomic"
    if unit == "ds":
        return "local"
    if name.startswith(("s_load", "s_buffer_load")):
        return "scalar"
    return "barrier" if name == "s_barrier" else "other"


def as_counter(counts) -> Counter:
    widths = {f"load {size}": n for size, n in counts.loads.items()}
    widths |= {f"store {size}": n for size, n in counts.stores.items()}
    classes = {"all": counts.total, "matrix": counts.matrix, "scalar": counts.scalar_loads, "atomic": counts.atomics}
    return Counter(widths | classes | {"local": counts.shared_memory, "barrier": counts.barriers})


@pytest.mark.parametrize("target", [GFX942, GFX950], ids=lambda t: t.name)
@pytest.mark.parametrize("name", op_names())
def test_kernel_of(name, target):
    op, (case, *_) = load(name, target.element_format)
    program = Program("case", OpCall(op, case.arguments), tensors_of(case))
    (injected,) = inject(trace([program], target, lambda _: None), target, Toolchain()).kernels
    code = machine_code(injected.code, injected.composition.symbol)
    expected = decoded_counts(code)
    del expected["other"]
    assert +as_counter(injected.kernel.instructions) == expected
    assert as_counter(count_amd_instructions(code[:-4])) != expected, "a cut kernel counts less"


def words(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "little") for value in values)


LITERAL = 0x12345678
ENCODINGS = {
    "s_mov_b32 s0, literal": (words(0xBE8000FF, LITERAL), {}),
    "s_mov_b32 s0, s255 is none": (words(0xBE800001), {}),
    "s_add_u32 s0, s1, literal": (words(0x8000FF01, LITERAL), {}),
    "s_cmp_eq_i32 s0, literal": (words(0xBF00FF00, LITERAL), {}),
    "s_movk_i32, whose constant looks like a literal": (words(0xB00000FF), {}),
    "s_setreg_imm32_b32": (words(0xBA000001, LITERAL), {}),
    "v_mov_b32 v0, literal": (words(0x7E0002FF, LITERAL), {}),
    "v_mov_b32_sdwa": (words(0x7E0002F9, LITERAL), {}),
    "v_mov_b32_dpp": (words(0x7E0002FA, LITERAL), {}),
    "v_fmaak_f32": (words(24 << 25, LITERAL), {}),
    "v_cmp_lt_f32 vcc, literal, v0": (words(0x7C8200FF, LITERAL), {}),
    "v_mad_u32_u24 in three-operand form": (words(0xD1C30000, 0), {}),
    "s_barrier": (words(0xBF8A0000), {"barrier": 1}),
    "s_nop": (words(0xBF800000), {}),
    "s_load_dwordx2": (words(0xC0060000, 0), {"scalar": 1}),
    "s_memtime": (words(0xC0900000, 0), {}),
    "ds_read_b128": (words(0xD9FE0000, 0), {"local": 1}),
    "global_load_dwordx4": (words(0xDC5C8000, 0), {"load 16": 1}),
    "flat_load_ushort": (words(0xDC480000, 0), {"load 2": 1}),
    "scratch_load_dword": (words(0xDC504000, 0), {}),
    "global_store_byte": (words(0xDC608000, 0), {"store 1": 1}),
    "global_load_lds_dwordx4": (words(0xDDF48000, 0), {"load 16": 1}),
    "global_atomic_add": (words(0xDD088000, 0), {"atomic": 1}),
    "buffer_load_dword": (words(0xE0500000, 0), {"load 4": 1}),
    "buffer_inv": (words(0xE0A40000, 0), {}),
    "v_mfma_f32_16x16x32_fp8_fp8": (words(0xD3F38000, 0), {"matrix": 1}),
    "v_accvgpr_read": (words(0xD3D84000, 0), {}),
    "v_pk_fma_f32": (words(0xD3B04000, 0), {}),
    "v_mfma_scale_f32_16x16x128_f8f6f4, a prefix and the product": (words(0xD3AC0000, 0, 0xD3AD0000, 0), {"matrix": 1}),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_encoding_of(name):
    code, expected = ENCODINGS[name]
    end = words(0xBF810000)
    # A wrong length would take the end of the program for a part of the instruction, or the reverse.
    assert +as_counter(count_amd_instructions(code + end)) == Counter(expected) + Counter(all=2)


@pytest.mark.parametrize("word", [0xF8000000, 0xD4000000, 0xC8000000])
def test_other_machines_code_is_refused(word):
    with pytest.raises(PredecodeError, match=f"0x{word:08x} at byte 4 is no CDNA instruction"):
        count_amd_instructions(words(0xBF800000, word, 0))


def test_a_cut_instruction_is_refused():
    with pytest.raises(PredecodeError, match="ends inside its instruction at byte 0"):
        count_amd_instructions(words(0xDC5C8000))


PTX = {
    "ld.global.nc.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];": {"load 16": 1},
    "@!%p1 ld.global.b16 %rs1, [%rd1];": {"load 2": 1},
    "ld.f32 %f1, [%rd1];": {"load 4": 1},
    "// begin inline asm\n\tld.global.nc.L1::no_allocate.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];": {"load 16": 1},
    "cp.async.cg.shared.global [%r1], [%rd1], 16;": {"load 16": 1},
    "st.global.v2.b32 [%rd1], {%r1, %r2};": {"store 8": 1},
    "st.shared.v4.b32 [%r1], {%r1, %r2, %r3, %r4};": {"local": 1},
    "ld.param.b64 %rd1, [scale_param_0];": {"scalar": 1},
    "red.global.add.u32 [%rd1], %r1;": {"atomic": 1},
    "bar.sync 0;": {"barrier": 1},
    "// begin inline asm\n{ .reg .b32 x; mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%f1}, {%r1}; }": {
        "matrix": 1
    },
    "$L__BB0_1:\n\tadd.s32 %r1, %r1, 1;": {},
    "ld.local.b32 %r1, [%rd1];": {},
}


@pytest.mark.parametrize("text", PTX)
def test_ptx_statement(text):
    counts = count_ptx_instructions(f"\n\t.reg .b32 %r<3>;\n// %bb.0:\n\t{text}\n\tret;")
    assert +as_counter(counts) == Counter(PTX[text]) + Counter(all=2)
