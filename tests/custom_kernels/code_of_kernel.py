"""The machine code of one kernel of an HSACO, found without the code under test."""

import io

from elftools.elf.elffile import ELFFile

from predecode.custom_kernels.toolchain import CodeObject


def machine_code(code: CodeObject, symbol: str) -> bytes:
    """Bytes of the function ``symbol``."""
    elf = ELFFile(io.BytesIO(code.data))
    (entry,) = [s for s in elf.get_section_by_name(".symtab").iter_symbols() if s.name == symbol]
    for segment in elf.iter_segments("PT_LOAD"):
        offset = entry["st_value"] - segment["p_vaddr"]
        if 0 <= offset < segment["p_filesz"]:
            return segment.data()[offset : offset + entry["st_size"]]
    raise AssertionError(f"{symbol} is in no loaded segment")
