"""The emulated device's libamdhip64, built for this machine, and what Python says to it through ctypes."""

import ctypes
import functools
from pathlib import Path

from predecode.pipelines.emulation.host_compiler import build_shared_object, content_key

SOURCE_FOLDER = Path(__file__).parent
ISA_FOLDER = SOURCE_FOLDER / "isa"

# Must list the kinds in the order of `enum ArgumentKind` (device.h).
ARGUMENT_KINDS = {
    "hidden_block_count_x": 1,
    "hidden_block_count_y": 2,
    "hidden_block_count_z": 3,
    "hidden_group_size_x": 4,
    "hidden_group_size_y": 5,
    "hidden_group_size_z": 6,
    "hidden_remainder_x": 7,
    "hidden_remainder_y": 8,
    "hidden_remainder_z": 9,
    "hidden_global_offset_x": 10,
    "hidden_global_offset_y": 11,
    "hidden_global_offset_z": 12,
    "hidden_grid_dims": 13,
    "hidden_dynamic_lds_size": 14,
}
VALUE_ARGUMENT, ZERO_ARGUMENT = 0, 15


class DeviceRecord(ctypes.Structure):
    """``struct Device``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("arch", ctypes.c_char_p),
        ("ordinal", ctypes.c_int),
        ("compute_units", ctypes.c_int),
        ("lds_bytes", ctypes.c_int),
        ("major", ctypes.c_int),
        ("minor", ctypes.c_int),
        ("l2_bytes", ctypes.c_int),
        ("clock_kilohertz", ctypes.c_int),
        ("strict", ctypes.c_bool),
    )


class ArgumentRecord(ctypes.Structure):
    """``struct Argument``."""

    _fields_ = (("offset", ctypes.c_uint32), ("size", ctypes.c_uint32), ("kind", ctypes.c_uint32))


class KernelRecord(ctypes.Structure):
    """``struct Kernel``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("text", ctypes.c_void_p),
        ("lds_bytes", ctypes.c_uint32),
        ("scratch_bytes", ctypes.c_uint32),
        ("argument_bytes", ctypes.c_uint32),
        ("max_workgroup_size", ctypes.c_uint32),
        ("resource_words", ctypes.c_uint32 * 3),
        ("code_properties", ctypes.c_uint32),
        ("argument_preload", ctypes.c_uint32),
        ("argument_count", ctypes.c_uint32),
        ("arguments", ctypes.POINTER(ArgumentRecord)),
        ("code_address", ctypes.c_uint64),
        ("device", ctypes.POINTER(DeviceRecord)),
    )


class VariableRecord(ctypes.Structure):
    """``struct Variable``."""

    _fields_ = (("name", ctypes.c_char_p), ("address", ctypes.c_uint64), ("size", ctypes.c_uint64))


class ModuleRecord(ctypes.Structure):
    """``struct Module``."""

    _fields_ = (
        ("token", ctypes.c_uint64),
        ("image", ctypes.c_void_p),
        ("image_bytes", ctypes.c_uint64),
        ("kernel_count", ctypes.c_uint32),
        ("variable_count", ctypes.c_uint32),
        ("kernels", ctypes.POINTER(KernelRecord)),
        ("variables", ctypes.POINTER(VariableRecord)),
    )


MODULE_LOADER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(DeviceRecord), ctypes.c_void_p, ctypes.POINTER(ModuleRecord)
)
MODULE_DROPPER = ctypes.CFUNCTYPE(None, ctypes.c_uint64)


def build_library() -> Path:
    """Builds (or finds in the cache) the libamdhip64.so of the emulated device and returns its path."""
    sources = {path.name: path.read_text() for path in sorted(SOURCE_FOLDER.glob("*.[ch]"))}
    wave_header = (ISA_FOLDER / "wave.h").read_text()
    key = content_key("libamdhip64", *[part for item in sources.items() for part in item], wave_header)
    return build_shared_object(key, "libamdhip64.so", lambda: sources, ISA_FOLDER)


@functools.cache
def load_library() -> ctypes.CDLL:
    """The library of this process: the hip driver opens the same file and so shares it."""
    ctypes.CDLL("libm.so.6", ctypes.RTLD_GLOBAL)  # What it and the kernels built later call.
    library = ctypes.CDLL(str(build_library()))
    library.emulator_place_image.restype = ctypes.c_void_p
    library.emulator_place_image.argtypes = [ctypes.c_size_t]
    library.emulator_take_fault.restype = ctypes.c_size_t
    library.emulator_take_fault.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    library.emulator_set_fault.argtypes = [ctypes.c_char_p]
    library.emulator_set_fault.restype = None
    library.emulator_share_memory.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.emulator_share_memory.restype = ctypes.c_bool
    library.emulator_show_devices.argtypes = [ctypes.c_bool]
    library.emulator_show_devices.restype = None
    library.emulator_take_records.restype = ctypes.c_size_t
    library.emulator_take_records.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    library.emulator_set_module_loader.restype = None
    library.emulator_set_module_loader.argtypes = [MODULE_LOADER, MODULE_DROPPER]
    return library
