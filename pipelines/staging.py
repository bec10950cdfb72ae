"""Handing a step's small inputs to the device without allocating or waiting: through host memory that it reads.

Allocating and freeing device memory makes some drivers wait for all of the device's work, so the buffers are made
once and written again for every step.
"""

from collections.abc import Mapping

import iree.runtime as rt
import numpy as np

from predecode.pipelines.manifest import TensorSpec
from predecode.pipelines.submission import Timeline

STEPS_UNDER_WAY = 4
"""Steps that may be submitted before the host waits for the first of them to have read its inputs."""
_HOST_MEMORY = int(rt.MemoryType.HOST_LOCAL) | int(rt.MemoryType.DEVICE_VISIBLE)
_HOST_USAGE = int(rt.BufferUsage.TRANSFER) | int(rt.BufferUsage.MAPPING_SCOPED) | int(rt.BufferUsage.MAPPING_PERSISTENT)


class StagedInputs:
    """Device arrays for the inputs ``specs``, by name; every step writes the same ones, in the timeline's order."""

    def __init__(self, device: rt.HalDevice, specs: Mapping[str, TensorSpec]):
        self._device = device
        zeros = {name: np.zeros(spec.shape, np.dtype(spec.dtype)) for name, spec in specs.items()}
        self._arrays = {name: rt.asdevicearray(device, array) for name, array in zeros.items()}
        self._slots = [
            {name: _HostBuffer(device, array) for name, array in zeros.items()} for _ in range(STEPS_UNDER_WAY)
        ]
        self._read_by: list[tuple[Timeline, int] | None] = [None] * STEPS_UNDER_WAY
        self._next = 0

    def write(self, timeline: Timeline, values: Mapping[str, np.ndarray]) -> dict[str, rt.DeviceArray]:
        """The arrays of ``values``, which hold them once ``timeline`` got to this point."""
        slot, self._next = self._next, (self._next + 1) % STEPS_UNDER_WAY
        if self._read_by[slot] is not None:
            earlier, point = self._read_by[slot]
            earlier.wait(point)
        for name, value in values.items():
            buffer = self._slots[slot][name]
            buffer.array[...] = value
            target = self._arrays[name]._buffer_view.get_buffer()
            self._device.queue_copy(buffer.memory, target, *timeline.next_fences())
        self._read_by[slot] = timeline, timeline.submitted
        return {name: self._arrays[name] for name in values}


class _HostBuffer:
    """Host memory that the device can read, as a NumPy array of the shape and dtype of ``like``."""

    def __init__(self, device: rt.HalDevice, like: np.ndarray):
        self.memory = device.allocator.allocate_buffer(_HOST_MEMORY, _HOST_USAGE, like.nbytes)
        self._mapped = self.memory.map()
        # As bytes first: the mapping knows no bfloat16.
        self.array = self._mapped.asarray([like.nbytes], np.dtype(np.uint8)).view(like.dtype).reshape(like.shape)
