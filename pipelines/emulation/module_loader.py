"""Loads code objects into the emulated device: translated to C, built for this machine, placed in memory."""

import atexit
import ctypes
import functools
import itertools
import struct
from pathlib import Path

from predecode.pipelines.emulation import code_object, device_library
from predecode.pipelines.emulation.code_object import CodeObject, CodeObjectError, Kernel
from predecode.pipelines.emulation.host_compiler import build_object, build_shared_object, content_key
from predecode.pipelines.errors import PredecodeError

FLOAT_MODES = {0xF0: "denormals kept", 0xC0: "single-precision denormals flushed"}
"""Float mode bits of a kernel descriptor that launches can provide, all rounding to nearest."""


class EmulationError(PredecodeError):
    """A fault of the emulated device: what the kernel did, where, and to which address or register."""


class ModuleLoader:
    """Answers the library's requests for modules and keeps what their kernels need until they are unloaded.

    ``error`` holds the last exception: it cannot pass through the driver, so that whoever called the driver
    raises it (see ``predecode.pipelines.emulation.pending_fault``).
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.error: PredecodeError | None = None
        self.loaded: dict[int, list] = {}
        self.tokens = itertools.count(1)
        # ctypes must hold the callbacks for as long as the library may call them.
        self.callbacks = (device_library.MODULE_LOADER(self._load), device_library.MODULE_DROPPER(self._drop))
        library.emulator_set_module_loader(*self.callbacks)
        # Modules that outlive the interpreter are dropped without it.
        no_callbacks = (device_library.MODULE_LOADER(), device_library.MODULE_DROPPER())
        atexit.register(library.emulator_set_module_loader, *no_callbacks)

    def _load(self, device_pointer, image: int, module_pointer) -> int:
        try:
            device = device_pointer.contents
            data = ctypes.string_at(image, code_object.file_size(ctypes.string_at(image, 64)))
            parsed = code_object.parse(data, device.arch.decode())
            self._fill(module_pointer.contents, device, parsed)
            return 0
        except PredecodeError as error:
            self.error = error
        except Exception as error:
            self.error = EmulationError(f"the emulated device failed on a code object: {error!r}")
            self.error.__cause__ = error
        self.library.emulator_set_fault(str(self.error).encode())
        return 1

    def _drop(self, token: int) -> None:
        self.loaded.pop(token, None)

    def _fill(self, module, device, parsed: CodeObject) -> None:
        image = self._place(parsed)
        module.image, module.image_bytes = image, len(parsed.image)
        shared_object = build_kernels(parsed, bool(device.strict))
        host_code = ctypes.CDLL(str(shared_object))
        table = (ctypes.c_void_p * (2 * len(parsed.kernels))).in_dll(host_code, "kernel_table")

        arguments = [_argument_records(kernel) for kernel in parsed.kernels]
        kernels = (device_library.KernelRecord * len(parsed.kernels))()
        for i, kernel in enumerate(parsed.kernels):
            kernels[i] = device_library.KernelRecord(
                name=kernel.name.encode(),
                run=table[2 * i],
                text=table[2 * i + 1],
                lds_bytes=kernel.lds_bytes,
                scratch_bytes=kernel.scratch_bytes,
                argument_bytes=kernel.argument_bytes,
                max_workgroup_size=kernel.max_workgroup_size,
                resource_words=(ctypes.c_uint32 * 3)(*kernel.resource_words),
                code_properties=kernel.code_properties,
                argument_preload=kernel.argument_preload,
                argument_count=len(kernel.arguments),
                arguments=arguments[i],
                code_address=image + parsed.code_address,
                device=ctypes.pointer(device),
            )
        variables = (device_library.VariableRecord * len(parsed.variables))(
            *((v.name.encode(), image + v.address, v.size) for v in parsed.variables)
        )
        module.token = next(self.tokens)
        module.kernel_count, module.kernels = len(kernels), kernels
        module.variable_count, module.variables = len(variables), variables
        self.loaded[module.token] = [host_code, arguments, kernels, variables]

    def _place(self, parsed: CodeObject) -> int:
        """Maps, fills and relocates the image; returns its address."""
        address = self.library.emulator_place_image(len(parsed.image))
        if not address:
            raise EmulationError(f"no host memory for a code object of {len(parsed.image)} bytes")
        relocated = bytearray(parsed.image)
        for target, value in parsed.relocations:
            struct.pack_into("<Q", relocated, target, address + value)
        ctypes.memmove(address, bytes(relocated), len(relocated))
        return address


def build_kernels(parsed: CodeObject, strict: bool) -> Path:
    """The shared object with all kernels of a code object, wherever its code is loaded.

    Its ``kernel_table`` holds two functions per kernel: one runs a wave, one gives an instruction's text.
    """
    entries = [(kernel.name, kernel.entry_offset) for kernel in parsed.kernels]
    key = content_key(_translator_text(), parsed.code, repr((parsed.arch, strict, entries)))
    return build_shared_object(
        key, "kernels.so", lambda: _translate(parsed, strict), device_library.ISA_FOLDER, run_time_objects(strict)
    )


def run_time_objects(strict: bool) -> list[Path]:
    """What translated kernels are linked with: the checks of strict mode."""
    if not strict:
        return []
    return [build_object(device_library.ISA_FOLDER / "checks.c", content_key(_translator_text()))]


def _translate(parsed: CodeObject, strict: bool) -> dict[str, str]:
    from predecode.pipelines.emulation.isa import translate

    sources, names = {}, []
    for i, kernel in enumerate(parsed.kernels):
        _check_float_mode(kernel)
        sources[f"kernel_{i}.c"] = translate.translate_kernel(
            parsed.code, kernel.entry_offset, kernel.name, parsed.arch, strict
        )
        names.append(translate.mangled_name(kernel.name))
    declarations = "".join(
        f"int {name}(struct Wave *wave);\nconst char *{name}_text(uint64_t address);\n" for name in names
    )
    table = ", ".join(f"(void *){name}, (void *){name}_text" for name in names)
    visible = '__attribute__((visibility("default")))'
    sources["table.c"] = f'#include "wave.h"\n{declarations}{visible} void *const kernel_table[] = {{{table}}};\n'
    return sources


def _check_float_mode(kernel: Kernel) -> None:
    mode = kernel.resource_words[0] >> 12 & 0xFF
    if mode not in FLOAT_MODES:
        expected = " or ".join(f"{bits:#x} ({meaning})" for bits, meaning in FLOAT_MODES.items())
        raise CodeObjectError(f"kernel {kernel.name} starts in float mode {mode:#x}, expected {expected}")


def _argument_records(kernel: Kernel):
    kinds = device_library.ARGUMENT_KINDS
    records = [
        device_library.ArgumentRecord(
            argument.offset,
            argument.size,
            kinds.get(argument.kind, device_library.ZERO_ARGUMENT)
            if argument.kind.startswith("hidden_")
            else device_library.VALUE_ARGUMENT,
        )
        for argument in kernel.arguments
    ]
    return (device_library.ArgumentRecord * len(records))(*records)


@functools.cache
def _translator_text() -> str:
    """All sources of the translator: a change of any of them makes what it built before obsolete."""
    files = sorted(path for path in device_library.ISA_FOLDER.iterdir() if path.suffix in (".py", ".h", ".c"))
    return "".join(path.read_text() for path in files)
