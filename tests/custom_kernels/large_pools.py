"""Cases of the ops that address a cache, in a pool beyond 4 GiB.

A small case's pages are put at the end of the pool. On the host it is sparse memory: what no page is in costs nothing.
"""

import mmap

import iree.runtime as rt
import numpy as np
import torch

from predecode.custom_kernels.targets import Target
from predecode.export.tensors import to_numpy
from tests.custom_kernels.cases.case import Case, mismatch
from tests.custom_kernels.compiled_cases import load, tensors_of

PAGE = 64
BYTES = 2**32
"""Of the pool, before the case's pages: 32 bits of any sign wrap."""
CASES = {
    "indexer_k_prepare_and_cache": "tile and page edges",
    "indexer_k_quant_and_cache": "tile and page edges",
    "cp_gather_indexer_k_quant_cache": "pages backwards",
    "paged_mqa_logits": "pages backwards",
    "indexer_q_prepare_and_logits": "pages backwards, halves",
    "latent_norms_and_cache": "page edges and padding",
    "sparse_mla": "descending slots",
}
MEMORY = int(rt.MemoryType.HOST_LOCAL) | int(rt.MemoryType.DEVICE_VISIBLE)
USAGE = int(rt.BufferUsage.DEFAULT) | int(rt.BufferUsage.MAPPING)


class LargePool:
    """A case of an op whose cache pages have moved to the end of a pool of more than ``BYTES``."""

    def __init__(self, name: str, target: Target):
        self.op, cases = load(name, target.element_format)
        (self.small,) = (case for case in cases if case.label == CASES[name])
        names = [argument.name for argument in self.op.overload._schema.arguments]
        given = dict(zip(names, self.small.arguments, strict=True))
        cache = given["cache"]
        self.first_page = BYTES // cache.shape[1] + 1
        self.memory = mmap.mmap(-1, (self.first_page + len(cache)) * cache.shape[1])
        self.pool = np.frombuffer(self.memory, dtype=np.int8).reshape(-1, cache.shape[1])
        self.pool[self.first_page :] = cache.numpy()
        moved = {"cache": torch.from_numpy(self.pool)}
        for argument, step in (("slot_mapping", PAGE), ("slots", PAGE), ("block_table", 1)):
            if argument in given:
                index = given[argument]
                inside = (index >= 0) & (index < len(cache) * step)  # others are not to be followed
                moved[argument] = torch.where(inside, index + self.first_page * step, index)
        self.case = Case(self.small.label, tuple((given | moved).values()), self.small.compare)

    def first_mismatch(self, vmfb: bytes, device: rt.HalDevice, reads_host: bool) -> str | None:
        """How what the case's module gives misses the reference, if it does; or a write astray.

        ``reads_host`` where the device works on the host's memory; another one gets a copy of the whole pool.
        """
        results = self._run(vmfb, device, reads_host)
        expected = self.op.reference(*self.small.arguments)
        expected = expected if isinstance(expected, tuple) else (expected,)
        for result, wanted, rule in zip(results, expected, self.small.compare, strict=True):
            if fault := mismatch(_as_tensor(result, wanted), wanted, rule):
                return fault
        return f"{self.strays()} bytes are written astray" if self.strays() else None

    def _run(self, vmfb: bytes, device: rt.HalDevice, reads_host: bool) -> list[torch.Tensor]:
        """The results, of a cache only the pages that have moved."""
        config = rt.Config(device=device)
        module = rt.load_vm_module(rt.VmModule.copy_buffer(config.vm_instance, vmfb), config)
        given = [self._buffer(tensor, device, reads_host) for tensor in tensors_of(self.case)]
        results = module["case_0"](*given)
        results = list(results) if isinstance(results, tuple) else [results]
        if not reads_host:
            (pool,) = (array for array in given if tuple(array.shape) == self.pool.shape)
            self.pool[:] = pool.to_host()
        return [self._moved_pages() if i in self.op.in_place else _copied(r) for i, r in enumerate(results)]

    def _buffer(self, tensor: torch.Tensor, device: rt.HalDevice, reads_host: bool) -> rt.DeviceArray:
        if tensor.shape != self.pool.shape or not reads_host:
            return rt.asdevicearray(device, to_numpy(tensor))
        buffer = device.allocator.import_host_allocation(self.pool, MEMORY, USAGE)
        view = rt.HalBufferView(buffer, self.pool.shape, int(rt.HalElementType.SINT_8))
        return rt.DeviceArray(device, view)

    def _moved_pages(self) -> torch.Tensor:
        return torch.from_numpy(self.pool[self.first_page :].copy())

    def strays(self) -> int:
        """How many bytes are written where an address that has lost its bits from the 31st or 32nd on would lie."""
        end = self.pool[self.first_page :].nbytes
        start = self.pool[: self.first_page].nbytes
        flat = self.pool.reshape(-1)
        return sum(int(np.count_nonzero(flat[start % 2**bits :][:end])) for bits in (31, 32))


def _copied(result: rt.DeviceArray) -> np.ndarray:
    return np.array(result.to_host())  # a copy: the buffer is the device's


def _as_tensor(result, expected: torch.Tensor) -> torch.Tensor:
    if isinstance(result, torch.Tensor):
        return result
    return torch.from_numpy(result.view(np.uint8).reshape(-1)).view(expected.dtype).reshape(expected.shape)
