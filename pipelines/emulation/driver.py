"""Points the IREE runtime's hip driver at the emulated device's library and opens its devices."""

import ctypes
import functools

import iree.runtime

from predecode.pipelines.emulation import counters, device_library
from predecode.pipelines.emulation.module_loader import EmulationError, ModuleLoader
from predecode.pipelines.errors import PredecodeError

_loaders: list[ModuleLoader] = []
"""The process's one loader, once the library is loaded."""


@functools.cache
def _devices() -> dict[str, int]:
    """Device name -> identifier, for the devices of this process's hip driver; creates it on first use."""
    _loaders.append(ModuleLoader(device_library.load_library()))
    iree.runtime.flags.parse_flags(
        f"--hip_dylib_path=file:{device_library.build_library()}",
        # The driver's own reuse of freed buffers would hide late accesses from strict devices.
        "--hip_async_caching=false",
    )
    driver = iree.runtime.get_driver("hip")
    return {device["name"]: device["device_id"] for device in driver.query_available_devices()}


def create_device(arch: str, strict: bool) -> iree.runtime.HalDevice:
    """Opens the device whose name tells arch and strictness (``devices`` in device.c)."""
    mark = f"(emulated {arch}, strict)" if strict else f"(emulated {arch})"
    identifiers = [identifier for name, identifier in _devices().items() if name.endswith(mark)]
    if not identifiers:
        raise PredecodeError(
            "the hip driver of this process drives "
            f"{', '.join(_devices()) or 'no device'}, which is not the emulated one: "
            "open the emulated device in a process that has not used the hip driver before"
        )
    return iree.runtime.get_driver("hip").create_device(identifiers[0])


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
