"""Device memory that processes on one host open to each other, by the GPU driver's own library.

The IREE runtime neither gives its memory to another process nor takes any. It and this share the device's primary
context, so that kernels of a module may use what is allocated here.
"""

import ctypes
import functools
from contextlib import contextmanager
from typing import Protocol

from predecode.pipelines.errors import PredecodeError

_HANDLE_BYTES = 64


class _Handle(ctypes.Structure):
    _fields_ = [("data", ctypes.c_ubyte * _HANDLE_BYTES)]


class PeerMemory(Protocol):
    """How one process's device memory becomes another's."""

    def allocate(self, size: int) -> int:
        """Address of ``size`` bytes, which stay as long as the process."""

    def clear(self, address: int, size: int) -> None:
        """Fill with zeros, and wait for it."""

    def handle(self, address: int) -> bytes:
        """What another process opens the memory at ``address`` by."""

    def open(self, handle: bytes) -> int:
        """Address of another process's memory, on this device or another one that it can reach."""


class CudaMemory:
    """`PeerMemory` on NVIDIA device number ``device``."""

    def __init__(self, device: int):
        self._cuda = _library("libcuda.so.1")
        number, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(number), ctypes.c_int(device))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), number)
        self._context = context

    def allocate(self, size: int) -> int:
        address = ctypes.c_uint64()
        with self._current():
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return address.value

    def clear(self, address: int, size: int) -> None:
        with self._current():
            self._call("cuMemsetD8_v2", ctypes.c_uint64(address), ctypes.c_ubyte(0), ctypes.c_size_t(size))
            self._call("cuCtxSynchronize")

    def handle(self, address: int) -> bytes:
        handle = _Handle()
        with self._current():
            self._call("cuIpcGetMemHandle", ctypes.byref(handle), ctypes.c_uint64(address))
        return bytes(handle.data)

    def open(self, handle: bytes) -> int:
        address = ctypes.c_uint64()
        enable_peer_access = ctypes.c_uint(1)
        with self._current():
            opened = _Handle.from_buffer_copy(handle)
            self._call("cuIpcOpenMemHandle_v2", ctypes.byref(address), opened, enable_peer_access)
        return address.value

    @contextmanager
    def _current(self):
        before = ctypes.c_void_p()
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        finally:
            self._call("cuCtxPopCurrent_v2", ctypes.byref(before))

    def _call(self, name: str, *arguments) -> None:
        error = getattr(self._cuda, name)(*arguments)
        if error:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(error, ctypes.byref(text))
            raise PredecodeError(f"{name} failed: {(text.value or str(error).encode()).decode()}")


class HipMemory:
    """`PeerMemory` on AMD device number ``device``: no cache keeps any of it, so that others' writes are seen."""

    _UNCACHED = 3

    def __init__(self, device: int):
        self._hip = _library("libamdhip64.so")
        self._hip.hipGetErrorString.restype = ctypes.c_char_p
        self._device = device

    def allocate(self, size: int) -> int:
        address = ctypes.c_void_p()
        self._call("hipExtMallocWithFlags", ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(self._UNCACHED))
        return address.value

    def clear(self, address: int, size: int) -> None:
        self._call("hipMemset", ctypes.c_void_p(address), ctypes.c_int(0), ctypes.c_size_t(size))
        self._call("hipDeviceSynchronize")

    def handle(self, address: int) -> bytes:
        handle = _Handle()
        self._call("hipIpcGetMemHandle", ctypes.byref(handle), ctypes.c_void_p(address))
        return bytes(handle.data)

    def open(self, handle: bytes) -> int:
        address = ctypes.c_void_p()
        enable_peer_access = ctypes.c_uint(1)
        opened = _Handle.from_buffer_copy(handle)
        self._call("hipIpcOpenMemHandle", ctypes.byref(address), opened, enable_peer_access)
        return address.value

    def _call(self, name: str, *arguments) -> None:
        error = self._hip.hipSetDevice(ctypes.c_int(self._device)) or getattr(self._hip, name)(*arguments)
        if error:
            raise PredecodeError(f"{name} failed: {self._hip.hipGetErrorString(error).decode()}")


MEMORY_OF_DRIVER = {"cuda": CudaMemory, "hip": HipMemory}


@functools.cache
def _library(name: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise PredecodeError(f"{name}, the GPU driver's library, cannot be loaded: {error}") from None
