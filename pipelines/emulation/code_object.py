"""AMD GPU code objects: the ELF files that hold kernels, their descriptors and their metadata.

Formats: the ELF layout, kernel descriptor, ``NT_AMDGPU_METADATA`` note (msgpack, code object version 4 to 6)
and relocations of LLVM's "User Guide for AMDGPU Backend".
"""

import struct
from dataclasses import dataclass

from predecode.pipelines.errors import PredecodeError

EM_AMDGPU = 224
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
PF_EXECUTE = 1
DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ = 4, 5, 6, 7, 8
NT_AMDGPU_METADATA = 32
R_AMDGPU_NONE, R_AMDGPU_ABS64, R_AMDGPU_RELATIVE64 = 0, 3, 13

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQq")
KERNEL_DESCRIPTOR = struct.Struct("<III4xq20xIIIHH4x")
MAX_IMAGE_BYTES = 1 << 24
KERNARG_PRELOAD_PROLOGUE = 256
"""Bytes of compatibility code before the real entry of a kernel whose arguments the hardware preloads."""


class CodeObjectError(PredecodeError):
    """The bytes are no code object that the emulated device can run."""


@dataclass(frozen=True, slots=True)
class KernelArgument:
    """One entry of the kernel's argument segment, in bytes. ``kind`` is the metadata's ``.value_kind``."""

    offset: int
    size: int
    kind: str


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel: its entry in the code segment, its resources and the raw words of its descriptor."""

    name: str
    entry_offset: int
    """Offset in bytes from the first byte of the code segment to the first instruction executed."""
    arguments: tuple[KernelArgument, ...]
    argument_bytes: int
    lds_bytes: int
    scratch_bytes: int
    """Private memory of one work-item."""
    max_workgroup_size: int
    resource_words: tuple[int, int, int]
    """COMPUTE_PGM_RSRC1, 2 and 3."""
    code_properties: int
    argument_preload: int


@dataclass(frozen=True, slots=True)
class GlobalVariable:
    """A device variable of the code object: its address in the image and its size in bytes."""

    name: str
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class CodeObject:
    """A parsed code object. Addresses are the ELF file's own; a load address is added when it is placed."""

    arch: str
    image: bytes
    """The loaded segments from address 0, before relocation."""
    code: bytes
    code_address: int
    kernels: tuple[Kernel, ...]
    variables: tuple[GlobalVariable, ...]
    relocations: tuple[tuple[int, int], ...]
    """Pairs (address of an 8-byte slot, image address whose loaded value goes there)."""


def file_size(header: bytes) -> int:
    """Bytes that the ELF file spans, from its first 64 (the linker writes the section table last).

    Raises CodeObjectError if the bytes are no ELF file: offload bundles, compressed or not, are not
    supported.
    """
    if header[:4] != b"\x7fELF":
        raise CodeObjectError(
            f"the module image starts with {header[:8]!r}, expected an ELF code object: "
            "unbundle it (one architecture, not compressed) before embedding it"
        )
    fields = ELF_HEADER.unpack_from(header)
    section_table, section_size, section_count = fields[6], fields[11], fields[12]
    return section_table + section_size * section_count


def parse(data: bytes, expected_arch: str) -> CodeObject:
    """Parses a code object built for ``expected_arch`` (for instance ``gfx942``).

    Raises CodeObjectError for anything that is not a 64-bit AMD GPU shared object of that architecture.
    """
    if len(data) < ELF_HEADER.size:
        raise CodeObjectError(f"code object has {len(data)} bytes, which is less than an ELF header")
    file_size(data[: ELF_HEADER.size])
    identification, _, machine, _, _, program_table, _, _, _, entry_size, count, *_ = ELF_HEADER.unpack_from(data)
    if machine != EM_AMDGPU or identification[4] != 2:
        raise CodeObjectError(f"ELF file is for machine {machine}, expected {EM_AMDGPU} (AMD GPU, 64 bit)")
    try:
        segments = [PROGRAM_HEADER.unpack_from(data, program_table + i * entry_size) for i in range(count)]
        metadata = _metadata(data, segments)
        arch = metadata["amdhsa.target"].split(":")[0].rsplit("-", 1)[-1]
        if arch != expected_arch:
            raise CodeObjectError(
                f"code object is built for {arch}, but the device is {expected_arch}: "
                f"export the module for {expected_arch}, or open the emulated device as {arch}"
            )
        return _loaded(arch, data, segments, metadata)
    except (struct.error, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise CodeObjectError(f"code object is damaged: {error!r}") from error


def _loaded(arch: str, data: bytes, segments: list[tuple], metadata: dict) -> CodeObject:
    loads = [segment for segment in segments if segment[0] == PT_LOAD]
    span = max(address + size for _, _, _, address, _, _, size, _ in loads)
    if span > MAX_IMAGE_BYTES:
        raise CodeObjectError(f"code object spans {span} bytes, more than the {MAX_IMAGE_BYTES} supported")
    image = bytearray(span)
    for _, _, offset, address, _, stored, _, _ in loads:
        image[address : address + stored] = data[offset : offset + stored]
    code_segments = [segment for segment in loads if segment[1] & PF_EXECUTE]
    if len(code_segments) != 1:
        raise CodeObjectError(f"code object has {len(code_segments)} executable segments, expected 1")
    _, _, offset, code_address, _, code_size, _, _ = code_segments[0]

    dynamic = _dynamic_table(image, segments)
    symbols = _symbols(image, dynamic)
    by_name = {name: (address, size) for name, address, size, _ in symbols}
    kernels = tuple(_kernel(image, code_address, entry, by_name) for entry in metadata["amdhsa.kernels"])
    descriptors = {kernel.name + ".kd" for kernel in kernels}
    variables = tuple(
        GlobalVariable(name, address, size)
        for name, address, size, kind in symbols
        if kind == 1 and name not in descriptors  # STT_OBJECT
    )
    return CodeObject(
        arch=arch,
        image=bytes(image),
        code=data[offset : offset + code_size],
        code_address=code_address,
        kernels=kernels,
        variables=variables,
        relocations=_relocations(image, dynamic, symbols),
    )


def _metadata(data: bytes, segments: list[tuple]) -> dict:
    import msgpack

    for kind, _, offset, _, _, size, _, _ in segments:
        if kind != PT_NOTE:
            continue
        position, end = offset, offset + size
        while position + 12 <= end:
            name_size, text_size, note_type = struct.unpack_from("<III", data, position)
            name_start = position + 12
            text_start = name_start + (name_size + 3) // 4 * 4
            if note_type == NT_AMDGPU_METADATA and data[name_start : name_start + 6] == b"AMDGPU":
                return msgpack.unpackb(data[text_start : text_start + text_size])
            position = text_start + (text_size + 3) // 4 * 4
    raise CodeObjectError("code object has no AMDGPU metadata note: it was not built for amdhsa")


def _dynamic_table(image: bytearray, segments: list[tuple]) -> dict[int, int]:
    for kind, _, _, address, _, _, size, _ in segments:
        if kind == PT_DYNAMIC:
            return dict(struct.unpack_from("<QQ", image, address + i) for i in range(0, size - 15, 16))
    raise CodeObjectError("code object has no dynamic segment: link it as a shared object")


def _symbols(image: bytearray, dynamic: dict[int, int]) -> list[tuple[str, int, int, int]]:
    """(name, address, size, kind) of each dynamic symbol, in table order."""
    _, count = struct.unpack_from("<II", image, dynamic[DT_HASH])
    symbols = []
    for i in range(count):
        name, info, _, section, address, size = SYMBOL.unpack_from(image, dynamic[DT_SYMTAB] + i * SYMBOL.size)
        start = dynamic[DT_STRTAB] + name
        text = image[start : image.index(0, start)].decode()
        if i and section == 0:
            raise CodeObjectError(f"code object needs the undefined symbol {text}: link it completely")
        symbols.append((text, address, size, info & 15))
    return symbols


def _relocations(image: bytearray, dynamic: dict[int, int], symbols: list) -> tuple[tuple[int, int], ...]:
    found = []
    for i in range(0, dynamic.get(DT_RELASZ, 0), RELOCATION.size):
        slot, info, addend = RELOCATION.unpack_from(image, dynamic[DT_RELA] + i)
        kind, symbol = info & 0xFFFFFFFF, info >> 32
        if kind == R_AMDGPU_NONE:
            continue
        if kind not in (R_AMDGPU_ABS64, R_AMDGPU_RELATIVE64):
            raise CodeObjectError(f"code object has relocation type {kind} at {slot:#x}, which is not supported")
        target = addend + (symbols[symbol][1] if kind == R_AMDGPU_ABS64 else 0)
        if slot + 8 > len(image):
            raise CodeObjectError(f"code object has a relocation at {slot:#x}, outside its {len(image)} bytes")
        found.append((slot, target))
    return tuple(found)


def _kernel(image: bytearray, code_address: int, entry: dict, symbols: dict[str, tuple[int, int]]) -> Kernel:
    name = entry[".name"]
    descriptor_address = symbols[entry[".symbol"]][0]
    lds, scratch, argument_bytes, code_offset, word3, word1, word2, properties, preload = KERNEL_DESCRIPTOR.unpack_from(
        image, descriptor_address
    )
    if entry[".wavefront_size"] != 64:
        raise CodeObjectError(f"kernel {name} is built for waves of {entry['.wavefront_size']}, expected 64")
    if entry.get(".uses_dynamic_stack"):
        raise CodeObjectError(f"kernel {name} uses a stack of unknown size (recursion or calls by pointer)")
    entry_offset = descriptor_address + code_offset - code_address
    if preload & 0x7F:
        entry_offset += KERNARG_PRELOAD_PROLOGUE
    return Kernel(
        name=name,
        entry_offset=entry_offset,
        arguments=tuple(
            KernelArgument(argument[".offset"], argument[".size"], argument[".value_kind"])
            for argument in entry.get(".args", ())
        ),
        argument_bytes=max(argument_bytes, entry[".kernarg_segment_size"]),
        lds_bytes=lds,
        scratch_bytes=scratch,
        max_workgroup_size=entry[".max_flat_workgroup_size"],
        resource_words=(word1, word2, word3),
        code_properties=properties,
        argument_preload=preload,
    )
