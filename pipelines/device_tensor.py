"""A result on the device, to be taken by torch or another array library without a copy."""

import ctypes

import iree.runtime as rt

from predecode.pipelines.device import numbered

_DLPACK_CPU, _DLPACK_CUDA, _DLPACK_ROCM = 1, 2, 10
_DLPACK_CODES = {"local-task": _DLPACK_CPU, "local-sync": _DLPACK_CPU, "cuda": _DLPACK_CUDA, "hip": _DLPACK_ROCM}
_DLPACK_BYTE_OFFSET = 40
"""Of a DLTensor, behind its data pointer, device, axes, element type, shape and strides."""
_capsule_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_capsule_pointer.restype, _capsule_pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)


class DeviceTensor:
    """An array in device memory that speaks DLPack: ``torch.from_dlpack(tensor)`` shares its memory.

    The memory lives as long as anything that was made from it. Only complete results are handed out, so that a
    stream of the taker may read them at once. Raises a `PredecodeError` for a device that other libraries cannot
    name: an emulated one, or one that was opened by another path than its number.
    """

    def __init__(self, array: rt.DeviceArray, device: rt.HalDevice, uri: str):
        driver, number = numbered(uri)
        self.array = array
        self._device = device
        self._dlpack_device = (_DLPACK_CODES[driver], number)

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return tuple(self.array.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._dlpack_device

    def __dlpack__(self, **_):
        return self._device.create_dlpack_capsule(self.array._buffer_view, *self._dlpack_device)


def device_address(array: rt.DeviceArray, device: rt.HalDevice) -> int:
    """Where ``array`` lies in the memory of ``device``, for kernels that follow addresses; it must outlive them."""
    capsule = device.create_dlpack_capsule(array._buffer_view, _DLPACK_CPU, 0)
    tensor = _capsule_pointer(capsule, b"dltensor")
    data, offset = (ctypes.c_uint64.from_address(tensor + at).value for at in (0, _DLPACK_BYTE_OFFSET))
    return data + offset
