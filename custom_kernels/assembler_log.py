"""What ptxas says of each kernel that it assembles."""

import re
from dataclasses import dataclass

from predecode.pipelines.kernel_record import REGISTER_BYTES

_KERNEL = re.compile(r"Compiling entry function '(\w+)' for '\w+'\n(.*?)(?=^ptxas info\s+: Compiling|\Z)", re.S | re.M)
_FRAME = "Function properties for {}\n *(\\d+) bytes stack frame, (\\d+) bytes spill stores"
_REGISTERS = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class AssembledKernel:
    """What a lane takes: registers, how many of them are stored to memory for want of more, and bytes of memory.

    ``shared_bytes`` are of the workgroup.
    """

    registers: int
    spills: int
    stack_bytes: int
    shared_bytes: int


def read_assembler_log(text: str) -> dict[str, AssembledKernel]:
    """Kernels by symbol, from what ``ptxas --verbose`` writes."""
    return {symbol: _read_kernel(symbol, said) for symbol, said in _KERNEL.findall(text)}


def _read_kernel(symbol: str, said: str) -> AssembledKernel:
    stack, stores = map(int, re.search(_FRAME.format(symbol), said).groups())
    shared = _SHARED.search(said)
    return AssembledKernel(
        registers=int(_REGISTERS.search(said)[1]),
        spills=stores // REGISTER_BYTES,
        stack_bytes=stack,
        shared_bytes=int(shared[1]) if shared else 0,
    )
