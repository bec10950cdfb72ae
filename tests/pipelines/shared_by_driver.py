"""What processes do with memory that a GPU driver, or a library that stands for one, opens to them."""

import ctypes

from predecode.pipelines import peer_memory
from predecode.pipelines.mailboxes import AllGather

SIZE = 4096


def write_to_the_next(rank: int, all_gather: AllGather, library: str, driver: str) -> tuple[bytes, bytes]:
    """Clears its own memory, writes its rank into that of the next one; what it finds in its own, before and after."""
    peer_memory._library = lambda name: ctypes.CDLL(library)
    memory = peer_memory.MEMORY_OF_DRIVER[driver](rank)
    own = memory.allocate(SIZE)
    ctypes.memset(own, 0xFF, SIZE)
    memory.clear(own, SIZE)
    before = ctypes.string_at(own, SIZE)
    handles = all_gather(memory.handle(own))
    others = memory.open(handles[(rank + 1) % len(handles)])
    ctypes.memset(others + SIZE - 1, rank + 1, 1)
    all_gather(b"")
    return before, ctypes.string_at(own, SIZE)
