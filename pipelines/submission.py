"""Submitting work to a device without waiting for it: the order of submissions, and asynchronous calls."""

from collections.abc import Iterable, Sequence

import iree.runtime as rt
import numpy as np

from predecode.pipelines.manifest import EntryPoint

ASYNC_SUFFIX = "$async"
"""Of the functions that take transient memory, a fence to wait for and a fence to signal after their arguments."""
_DEVICE_MEMORY = int(rt.MemoryType.DEVICE_LOCAL)
_DISPATCH_USAGE = int(rt.BufferUsage.DEFAULT)


class Timeline:
    """The order of what is submitted to a device: every submission begins when the one before has ended."""

    def __init__(self, device: rt.HalDevice):
        self.submitted = 0
        """How many submissions were made; each is a point of the timeline."""
        self._semaphore = device.create_semaphore(0)

    def next_fences(self) -> tuple[rt.HalFence, rt.HalFence]:
        """The fence that the next submission waits for, and the one that it must signal."""
        self.submitted += 1
        return (
            rt.HalFence.create_at(self._semaphore, self.submitted - 1),
            rt.HalFence.create_at(self._semaphore, self.submitted),
        )

    def wait(self, point: int | None = None) -> None:
        """Return when the submissions up to ``point``, or all, have ended; raises RuntimeError when one failed."""
        self._semaphore.wait(self.submitted if point is None else point)


def transient_memory(device: rt.HalDevice, entries: Iterable[EntryPoint]) -> rt.HalBuffer:
    """Memory on ``device`` for what steps of ``entries`` keep only while they run: one follows the other in it."""
    needed = max(entry.audit.transient_bytes for entry in entries)
    return device.allocator.allocate_buffer(_DEVICE_MEMORY, _DISPATCH_USAGE, max(needed, 1))


class EntryFunction:
    """An entry point of a loaded module, called without waiting for its results; ``transients`` are its own to use.

    Raises KeyError where the module has no asynchronous function for it.
    """

    def __init__(self, context: rt.VmContext, module: rt.VmModule, entry: EntryPoint, transients: rt.HalBuffer):
        self.entry = entry
        self._transients = transients
        self._context = context
        self._function = module.lookup_function(entry.name + ASYNC_SUFFIX)
        if self._function is None:
            raise KeyError(entry.name)

    def submit(
        self, device: rt.HalDevice, timeline: Timeline, arguments: Sequence[rt.DeviceArray]
    ) -> list[rt.DeviceArray]:
        """Call with ``arguments`` in the entry point's order; the results hold values once ``timeline`` got there."""
        passed = rt.VmVariantList(len(arguments) + 3)
        for argument in arguments:
            passed.push_ref(argument._buffer_view)
        passed.push_ref(self._transients)
        for fence in timeline.next_fences():
            passed.push_ref(fence)
        returned = rt.VmVariantList(len(self.entry.results))
        self._context.invoke(self._function, passed, returned)
        return [
            rt.DeviceArray(
                device,
                returned.get_as_object(index, rt.HalBufferView),
                implicit_host_transfer=True,
                override_dtype=np.dtype(spec.dtype),
            )
            for index, spec in enumerate(self.entry.results)
        ]
