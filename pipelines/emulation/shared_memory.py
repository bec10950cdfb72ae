"""Memory of emulated devices that processes on one host share."""

import ctypes
import mmap
import os

from predecode.pipelines.emulation import driver
from predecode.pipelines.errors import PredecodeError


class SharedMemory:
    """`PeerMemory` of the emulated devices: host memory without a name, which others open by this process's number."""

    def __init__(self):
        self._files: dict[int, int] = {}

    def allocate(self, size: int) -> int:
        file = os.memfd_create("predecode")
        os.ftruncate(file, size)
        address = _map(file)
        self._files[address] = file
        return address

    def clear(self, address: int, size: int) -> None:
        ctypes.memset(address, 0, size)

    def handle(self, address: int) -> bytes:
        return f"/proc/{os.getpid()}/fd/{self._files[address]}".encode()

    def open(self, handle: bytes) -> int:
        try:
            file = os.open(handle, os.O_RDWR)
        except OSError as error:
            raise PredecodeError(f"another rank's memory cannot be opened: {error}; has its process ended?") from None
        return _map(file)


_maps: list[mmap.mmap] = []
"""Kernels may use what has been mapped for as long as the process lives."""


def _map(file: int) -> int:
    _maps.append(mmap.mmap(file, 0))
    address = ctypes.addressof(ctypes.c_char.from_buffer(_maps[-1]))
    driver.share_memory(address, len(_maps[-1]))
    return address
