"""What a compiled kernel says of itself: arch, symbols, arguments and resources, read from HSACO, or PTX and its
assembler's log."""

import io
import re
from dataclasses import dataclass

import msgpack
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from predecode.custom_kernels.amd_instructions import count_amd_instructions
from predecode.custom_kernels.assembler_log import AssembledKernel, read_assembler_log
from predecode.custom_kernels.ptx_instructions import count_ptx_instructions
from predecode.custom_kernels.toolchain import CodeObject
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.kernel_record import InstructionCounts, KernelResources

# e_flags' low byte of an AMDGPU ELF (LLVM AMDGPUUsage, "ELF header e_flags").
_AMD_MACHINES = {0x4C: "gfx942", 0x4F: "gfx950"}


@dataclass(frozen=True, slots=True)
class KernelArgument:
    """One explicit kernel argument; ``kind`` is "pointer", "value" or, for AMD's hidden ones, their own name."""

    kind: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of a code object."""

    symbol: str
    arch: str
    arguments: tuple[KernelArgument, ...]
    largest_workgroup: int
    wave_size: int
    resources: KernelResources
    instructions: InstructionCounts


def read_kernels(code: CodeObject) -> dict[str, Kernel]:
    """Kernels by symbol. Raises `PredecodeError` for data that is no HSACO or PTX."""
    if code.suffix == "ptx":
        return _read_ptx(code)
    return _read_hsaco(code)


def _read_hsaco(code: CodeObject) -> dict[str, Kernel]:
    try:
        elf = ELFFile(io.BytesIO(code.data))
        arch = _AMD_MACHINES.get(elf["e_flags"] & 0xFF, f"machine 0x{elf['e_flags'] & 0xFF:02x}")
        notes = [n for s in elf.iter_sections("SHT_NOTE") for n in s.iter_notes() if n["n_name"] == "AMDGPU"]
        metadata = msgpack.unpackb(notes[0]["n_descdata"])
        return {k[".name"]: _hsaco_kernel(k, arch, _machine_code(elf, k[".name"])) for k in metadata["amdhsa.kernels"]}
    except (ELFError, IndexError, ValueError) as error:
        raise PredecodeError(f"{code.source}: not an AMD code object ({error}); rebuild the kernel") from error


def _machine_code(elf: ELFFile, symbol: str) -> bytes:
    (entry,) = elf.get_section_by_name(".dynsym").get_symbol_by_name(symbol)
    section = elf.get_section(entry["st_shndx"])
    start = entry["st_value"] - section["sh_addr"]
    return section.data()[start : start + entry["st_size"]]


def _hsaco_kernel(entry: dict, arch: str, machine_code: bytes) -> Kernel:
    kinds = {"global_buffer": "pointer", "by_value": "value"}
    arguments = tuple(
        KernelArgument(kinds.get(a[".value_kind"], a[".value_kind"]), a[".size"]) for a in entry.get(".args", ())
    )
    resources = KernelResources(
        vector_registers=entry[".vgpr_count"],
        accumulator_registers=entry[".agpr_count"],
        scalar_registers=entry[".sgpr_count"],
        shared_memory_bytes=entry[".group_segment_fixed_size"],
        scratch_bytes=entry[".private_segment_fixed_size"],
        register_spills=entry[".vgpr_spill_count"],
        scalar_spills=entry[".sgpr_spill_count"],
    )
    return Kernel(
        symbol=entry[".name"],
        arch=arch,
        arguments=arguments,
        largest_workgroup=entry[".max_flat_workgroup_size"],
        wave_size=entry[".wavefront_size"],
        resources=resources,
        instructions=count_amd_instructions(machine_code),
    )


_ENTRY = re.compile(r"\.visible \.entry (\w+)\((.*?)\)(.*?)\{(.*?)\n\}", re.S)


def _read_ptx(code: CodeObject) -> dict[str, Kernel]:
    text = code.data.decode()
    target = re.search(r"^\.target (\w+)", text, re.M)
    if not target:
        raise PredecodeError(f"{code.source}: not PTX, it has no .target line; rebuild the kernel")
    assembled = read_assembler_log(code.assembler_log)
    arch = target[1].removesuffix("a")
    requested = code.requested_shared_bytes
    return {match[1]: _ptx_kernel(match, arch, assembled[match[1]], requested) for match in _ENTRY.finditer(text)}


def _ptx_kernel(match: re.Match, arch: str, assembled: AssembledKernel, requested: int) -> Kernel:
    symbol, parameters, directives, body = match.groups()
    arguments = tuple(
        KernelArgument("pointer" if ".ptr" in p else "value", 8 if ".u64" in p or ".b64" in p else 4)
        for p in parameters.split(",")
        if p.strip()
    )
    largest = re.search(r"\.(?:max|req)ntid (\d+)(?:, (\d+))?(?:, (\d+))?", directives)
    threads = 1
    for extent in largest.groups() if largest else ("1024",):
        threads *= int(extent or 1)
    return Kernel(
        symbol=symbol,
        arch=arch,
        arguments=arguments,
        largest_workgroup=threads,
        wave_size=32,
        resources=KernelResources(
            vector_registers=assembled.registers,
            shared_memory_bytes=assembled.shared_bytes + requested,
            scratch_bytes=assembled.stack_bytes,
            register_spills=assembled.spills,
        ),
        instructions=count_ptx_instructions(body),
    )
