"""Times of single kernels on an NVIDIA GPU, by CUPTI's activity records of this process.

The runtime's cuda driver has no profiler of its own; CUPTI sees what it launches. The library comes with CUDA,
with PyTorch's CUDA builds, and as the wheel ``nvidia-cuda-cupti``.
"""

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from predecode.pipelines.bench.dispatch_times import DispatchTimesUnavailable, Event

METHOD = "CUPTI's concurrent-kernel records, from each kernel's start to its end on the GPU"
_CONCURRENT_KERNEL = 10
_SUCCESS = 0
_FLUSH_ALL = 1
_BUFFER_BYTES = 8 << 20
_BUFFER_ALIGNMENT = 8
_WHEEL_FOLDERS = ("nvidia/cu13/lib", "nvidia/cuda_cupti/lib")
_TOOLKIT_FOLDERS = ("/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/cuda/lib64")
_LIBRARY = "libcupti.so*"


class _KernelRecord(ctypes.Structure):
    """The part that CUpti_ActivityKernel4 to 11 (CUDA 9 to 13) have in common."""

    _fields_ = (
        ("kind", ctypes.c_uint32),
        ("cache_config", ctypes.c_uint8),
        ("shared_memory_config", ctypes.c_uint8),
        ("registers_per_thread", ctypes.c_uint16),
        ("cache_requested", ctypes.c_uint32),
        ("cache_executed", ctypes.c_uint32),
        ("start", ctypes.c_uint64),
        ("end", ctypes.c_uint64),
        ("completed", ctypes.c_uint64),
        ("device", ctypes.c_uint32),
        ("context", ctypes.c_uint32),
        ("stream", ctypes.c_uint32),
        ("grid", ctypes.c_int32 * 3),
        ("block", ctypes.c_int32 * 3),
        ("static_shared_memory", ctypes.c_int32),
        ("dynamic_shared_memory", ctypes.c_int32),
        ("local_memory_per_thread", ctypes.c_uint32),
        ("local_memory_total", ctypes.c_uint32),
        ("correlation", ctypes.c_uint32),
        ("grid_id", ctypes.c_int64),
        ("name", ctypes.c_char_p),
    )


_BufferRequested = ctypes.CFUNCTYPE(
    None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)
)
_BufferCompleted = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t
)


class KernelTrace:
    """Collects a record of every kernel of this process while `recording`."""

    def __init__(self):
        self._library = _load()
        self._events: list[Event] = []
        self._buffers: dict[int, ctypes.Array] = {}
        # Kept: CUPTI calls them from a thread of its own.
        self._requested = _BufferRequested(self._give_buffer)
        self._completed = _BufferCompleted(self._take_buffer)
        self._call("cuptiActivityRegisterCallbacks", self._requested, self._completed)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Kernels that start and end inside are recorded; the device must be idle when it is left."""
        self._call("cuptiActivityEnable", ctypes.c_uint32(_CONCURRENT_KERNEL))
        try:
            yield
        finally:
            self._call("cuptiActivityDisable", ctypes.c_uint32(_CONCURRENT_KERNEL))
            self._call("cuptiActivityFlushAll", ctypes.c_uint32(_FLUSH_ALL))

    def take_events(self) -> list[Event]:
        """What was recorded since the last time, in the order of start."""
        events, self._events = self._events, []
        return sorted(events, key=lambda event: event.start)

    def _give_buffer(self, buffer, size, most_records) -> None:
        storage = ctypes.create_string_buffer(_BUFFER_BYTES + _BUFFER_ALIGNMENT)
        address = -(-ctypes.addressof(storage) // _BUFFER_ALIGNMENT) * _BUFFER_ALIGNMENT
        self._buffers[address] = storage
        buffer[0], size[0], most_records[0] = address, _BUFFER_BYTES, 0

    def _take_buffer(self, context, stream, buffer, size, valid) -> None:
        record = ctypes.c_void_p()
        next_record = self._library.cuptiActivityGetNextRecord
        while next_record(ctypes.c_void_p(buffer), ctypes.c_size_t(valid), ctypes.byref(record)) == _SUCCESS:
            if ctypes.c_uint32.from_address(record.value).value == _CONCURRENT_KERNEL:
                kernel = _KernelRecord.from_address(record.value)
                name = (kernel.name or b"").decode(errors="replace")
                self._events.append(Event(name, tuple(kernel.grid), kernel.start, kernel.end))
        self._buffers.pop(buffer, None)

    def _call(self, function: str, *arguments) -> None:
        result = getattr(self._library, function)(*arguments)
        if result != _SUCCESS:
            text = ctypes.c_char_p()
            self._library.cuptiGetResultString(result, ctypes.byref(text))
            reason = (text.value or b"unknown error").decode()
            raise DispatchTimesUnavailable(f"CUPTI cannot trace kernels: {function} gives {reason} ({result})")


def _load() -> ctypes.CDLL:
    tried = []
    for path in _candidates():
        try:
            return ctypes.CDLL(path)
        except OSError as error:
            tried.append(str(error))
    raise DispatchTimesUnavailable(
        "no CUPTI library is found, which times single kernels; install the wheel nvidia-cuda-cupti"
        + (f" ({tried[0]})" if tried else "")
    )


def _candidates() -> Iterator[str]:
    for root in sys.path:
        for folder in _WHEEL_FOLDERS:
            yield from sorted(map(str, (Path(root) / folder).glob(_LIBRARY)), reverse=True)
    for folder in _TOOLKIT_FOLDERS:
        yield from sorted(map(str, Path(folder).glob(_LIBRARY)), reverse=True)
    found = ctypes.util.find_library("cupti")
    if found:
        yield found
