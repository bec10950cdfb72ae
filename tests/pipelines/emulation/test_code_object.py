"""Parsing of code objects: what is read, and what is refused."""

import random

import pytest

from predecode.pipelines.emulation import code_object
from predecode.pipelines.emulation.code_object import CodeObjectError
from tests.pipelines.emulation.hip_calls import compile_hip

SOURCE = """
__attribute__((device)) float table[64] = {1, 2, 3};
__attribute__((device)) float *first = table;
extern "C" __attribute__((global)) void lookup(float *out, int n, char c) {
  __attribute__((shared)) static float tile[300];
  int i = __builtin_amdgcn_workitem_id_x();
  tile[i] = table[i & 63] + *first;
  __builtin_amdgcn_s_barrier();
  out[i] = tile[(i + n + c) % 300];
}
extern "C" __attribute__((global)) void nothing() {}
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> bytes:
    return compile_hip(tmp_path_factory.mktemp("code"), SOURCE, "gfx942")


def test_reads_kernels_variables_and_relocations(code):
    parsed = code_object.parse(code, "gfx942")
    lookup, nothing = parsed.kernels
    assert (lookup.name, nothing.name) == ("lookup", "nothing")
    assert lookup.lds_bytes == 1200 and nothing.lds_bytes == 0
    assert [(a.offset, a.size, a.kind) for a in lookup.arguments] == [
        (0, 8, "global_buffer"),
        (8, 4, "by_value"),
        (12, 1, "by_value"),
    ]
    assert not nothing.arguments and lookup.argument_bytes == 16
    assert nothing.entry_offset % 256 == 0 and nothing.entry_offset != lookup.entry_offset
    assert parsed.code[nothing.entry_offset : nothing.entry_offset + 4] == bytes.fromhex("000081bf")  # s_endpgm
    sizes = {variable.name: variable.size for variable in parsed.variables}
    assert sizes["table"] == 256 and sizes["first"] == 8
    table = next(variable.address for variable in parsed.variables if variable.name == "table")
    first = next(variable.address for variable in parsed.variables if variable.name == "first")
    assert (first, table) in parsed.relocations
    assert parsed.image[table : table + 8] == bytes.fromhex("0000803f00000040")
    assert code_object.file_size(code[:64]) == len(code)


def test_another_architecture_is_refused_with_both_names(code):
    with pytest.raises(CodeObjectError, match=r"built for gfx942, but the device is gfx950"):
        code_object.parse(code, "gfx950")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "less than an ELF header"),
        (b"__CLANG_OFFLOAD_BUNDLE__" + bytes(64), "expected an ELF code object"),
        (b"\x7fELF" + bytes(60), "machine 0"),
    ],
)
def test_other_bytes_are_refused(data, message):
    with pytest.raises(CodeObjectError, match=message):
        code_object.parse(data, "gfx942")


def test_damage_never_raises_anything_else(code):
    generator = random.Random(7)
    refused = 0
    for _ in range(2000):
        damaged = bytearray(code[: generator.choice([len(code), generator.randrange(len(code))])])
        for _ in range(generator.randrange(4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            code_object.parse(bytes(damaged), "gfx942")
        except CodeObjectError:
            refused += 1
    assert refused > 700
