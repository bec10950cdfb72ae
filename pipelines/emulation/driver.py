"""Points the IREE runtime's hip driver at the emulated device's library and opens its devices."""

import contextlib
import ctypes
import functools

import iree.runtime

from predecode.pipelines.emulation import counters, device_library
from predecode.pipelines.emulation.module_loader import EmulationError, ModuleLoader
from predecode.pipelines.errors import PredecodeError

_loaders: list[ModuleLoader] = []
"""The process's one loader, once the library is loaded."""


@contextlib.contextmanager
def _emulated_devices():
    """Device name -> identifier, for the devices of this process's hip driver, which it creates on first use.

    Outside the block the emulated devices are invisible: whoever asks the driver for a GPU gets none of them.
    """
    library = _library()
    library.emulator_show_devices(True)
    try:
        devices = iree.runtime.get_driver("hip").query_available_devices()
        yield {device["name"]: device["device_id"] for device in devices}
    finally:
        library.emulator_show_devices(False)


@functools.cache
def _library() -> ctypes.CDLL:
    """Loads the library, answers its requests for modules and names it to the hip driver."""
    library = device_library.load_library()
    _loaders.append(ModuleLoader(library))
    iree.runtime.flags.parse_flags(
        f"--hip_dylib_path=file:{device_library.build_library()}",
        # The driver's own reuse of freed buffers would hide late accesses from strict devices.
        "--hip_async_caching=false",
    )
    return library


def create_device(arch: str, strict: bool) -> iree.runtime.HalDevice:
    """Opens the device whose name tells arch and strictness (``devices`` in device.c)."""
    mark = f"(emulated {arch}, strict)" if strict else f"(emulated {arch})"
    with _emulated_devices() as devices:
        identifiers = [identifier for name, identifier in devices.items() if name.endswith(mark)]
        if identifiers:
            return iree.runtime.get_driver("hip").create_device(identifiers[0])
    raise PredecodeError(
        f"the hip driver of this process drives {', '.join(devices) or 'no device'}, which is not the "
        "emulated one: open the emulated device in a process that has not used the hip driver before"
    )


def share_memory(address: int, size: int) -> None:
    """Let kernels of the emulated devices use host memory that other processes write to."""
    if not _library().emulator_share_memory(address, size):
        raise PredecodeError("the host has no memory left to note which memory ranks share")


def take_fault() -> PredecodeError | None:
    """The error of the last module that failed to load, or the first fault of a launch or transfer."""
    for loader in _loaders:
        text = ctypes.create_string_buffer(4096)
        length = loader.library.emulator_take_fault(text, len(text))
        error, loader.error = loader.error, None
        if error is None and length:
            error = EmulationError(text.value.decode(errors="replace"))
        return error
    return None


def take_dispatch_counters() -> list[counters.DispatchCounters]:
    """See ``predecode.pipelines.emulation.dispatch_counters``."""
    return [record for loader in _loaders for record in counters.take_dispatch_counters(loader.library)]
