"""A result on the device, to be taken by torch or another array library without a copy."""

import iree.runtime as rt

from predecode.pipelines.errors import PredecodeError

_DLPACK_CPU, _DLPACK_CUDA, _DLPACK_ROCM = 1, 2, 10
_DLPACK_CODES = {"local-task": _DLPACK_CPU, "local-sync": _DLPACK_CPU, "cuda": _DLPACK_CUDA, "hip": _DLPACK_ROCM}


class DeviceTensor:
    """An array in device memory that speaks DLPack: ``torch.from_dlpack(tensor)`` shares its memory.

    The memory lives as long as anything that was made from it. Only complete results are handed out, so that a
    stream of the taker may read them at once. Raises a `PredecodeError` for a device that other libraries cannot
    name: an emulated one, or one that was opened by another path than its number.
    """

    def __init__(self, array: rt.DeviceArray, device: rt.HalDevice, uri: str):
        driver, _, path = uri.partition("://")
        if driver not in _DLPACK_CODES or (path and not path.isdigit()):
            raise PredecodeError(
                f"the memory of device {uri!r} cannot be shared with other libraries; open the session on one of "
                f"{', '.join(_DLPACK_CODES)}, by number where there are several (such as cuda://1)"
            )
        self.array = array
        self._device = device
        self._dlpack_device = (_DLPACK_CODES[driver], int(path or 0))

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents."""
        return tuple(self.array.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._dlpack_device

    def __dlpack__(self, **_):
        return self._device.create_dlpack_capsule(self.array._buffer_view, *self._dlpack_device)
