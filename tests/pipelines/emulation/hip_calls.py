"""HIP calls as a C program makes them, straight into the emulated device's library, and kernels to load."""

import ctypes
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import iree.compiler
import numpy as np

from predecode.pipelines.emulation import driver
from predecode.pipelines.errors import PredecodeError

SUCCESS, INVALID_VALUE, INVALID_DEVICE_POINTER, INVALID_IMAGE = 0, 1, 17, 200
NOT_FOUND, NOT_READY, ILLEGAL_ADDRESS, LAUNCH_FAILURE, NOT_SUPPORTED = 500, 600, 700, 719, 801
HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE = 1, 2, 3
ORDINALS = {("gfx942", False): 0, ("gfx942", True): 1, ("gfx950", False): 2, ("gfx950", True): 3}


def compile_hip(folder: Path, text: str, arch: str, edit: Callable[[str], str] | None = None) -> bytes:
    """The code object of a HIP source that needs no headers; ``edit`` changes its assembly on the way."""
    source, assembly, code = folder / "kernel.hip", folder / "kernel.s", folder / f"kernel.{arch}.hsaco"
    source.write_text(text)
    clang = [sys.executable, "-m", "ziglang", "clang"]
    target = ["-triple", "amdgcn-amd-amdhsa", "-target-cpu", arch]
    flags = ["-x", "hip", "-fcuda-is-device", "-O3", "-mcode-object-version=5", "-S"]
    subprocess.run([*clang, "-cc1", *target, *flags, source, "-o", assembly], check=True)
    if edit:
        before = assembly.read_text()
        assembly.write_text(edit(before))
        assert assembly.read_text() != before
    flags = ["-filetype", "obj"]
    subprocess.run([*clang, "-cc1as", *target, *flags, assembly, "-o", folder / "kernel.o"], check=True)
    linker = Path(iree.compiler.__file__).parent / "_mlir_libs" / "iree-lld"
    subprocess.run([linker, "-flavor", "gnu", "-shared", folder / "kernel.o", "-o", code], check=True)
    return code.read_bytes()


class Hip:
    """One emulated device, current on this thread."""

    def __init__(self, arch: str = "gfx942", strict: bool = True) -> None:
        driver.create_device(arch, strict)  # Registers the module loader; the calls below go round the driver.
        self.library = driver._loaders[0].library
        assert self.library.hipInit(0) == SUCCESS
        assert self.library.hipSetDevice(ORDINALS[arch, strict]) == SUCCESS
        self.modules: list[ctypes.c_void_p] = []
        self.fault()

    def unload_all(self) -> None:
        while self.modules:
            assert self.library.hipModuleUnload(self.modules.pop()) == SUCCESS

    def fault(self) -> str:
        error = driver.take_fault()
        assert error is None or isinstance(error, PredecodeError)
        return str(error) if error else ""

    def malloc(self, size: int) -> int:
        pointer = ctypes.c_void_p()
        assert self.library.hipMalloc(ctypes.byref(pointer), ctypes.c_size_t(size)) == SUCCESS
        return pointer.value

    def free(self, pointer: int) -> int:
        return self.library.hipFree(ctypes.c_void_p(pointer))

    def upload(self, array: np.ndarray) -> int:
        pointer = self.malloc(array.nbytes)
        assert self.copy(pointer, array.ctypes.data, array.nbytes, HOST_TO_DEVICE) == SUCCESS, self.fault()
        return pointer

    def download(self, pointer: int, shape, dtype) -> np.ndarray:
        array = np.empty(shape, dtype)
        assert self.copy(array.ctypes.data, pointer, array.nbytes, DEVICE_TO_HOST) == SUCCESS, self.fault()
        return array

    def copy(self, target: int, source: int, size: int, kind: int) -> int:
        return self.library.hipMemcpy(ctypes.c_void_p(target), ctypes.c_void_p(source), ctypes.c_size_t(size), kind)

    def load(self, code: bytes) -> tuple[int, ctypes.c_void_p]:
        module = ctypes.c_void_p()
        status = self.library.hipModuleLoadData(ctypes.byref(module), code)
        self.modules += [module] if status == SUCCESS else []
        return status, module

    def function(self, code: bytes, name: str) -> ctypes.c_void_p:
        status, module = self.load(code)
        assert status == SUCCESS, self.fault()
        function = ctypes.c_void_p()
        assert self.library.hipModuleGetFunction(ctypes.byref(function), module, name.encode()) == SUCCESS
        return function

    def launch(self, function, grid, block, *arguments) -> int:
        """Arguments are ctypes values; Python integers are device pointers."""
        values = [ctypes.c_void_p(value) if isinstance(value, int) else value for value in arguments]
        pointers = (ctypes.c_void_p * (len(values) + 1))(*(ctypes.addressof(value) for value in values))
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        return self.library.hipModuleLaunchKernel(function, *grid, *block, 0, None, pointers, None)
