"""Connecting a rank to the others of a tensor-parallel model, whose kernels then add up partial sums by themselves."""

import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import iree.runtime as rt
import numpy as np

from predecode.pipelines import device as devices
from predecode.pipelines.device_tensor import device_address
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.mailbox_table import looped_table, mailbox_table, memory_bytes, table_alone
from predecode.pipelines.manifest import Manifest
from predecode.pipelines.peer_memory import MEMORY_OF_DRIVER, PeerMemory
from predecode.pipelines.records import RecordError, decode, encode

AllGather = Callable[[bytes], Sequence[bytes]]
"""Gives what every rank has called it with, in the order of the ranks, to each of them."""
_ELEMENT_BYTES = 2
"""Of what is sent: bfloat16."""
_ALIKE = ("ranks", "model", "entry_points", "mailbox_bytes", "host")


class Mailboxes:
    """The mailboxes of the rank that ``manifest`` describes, on ``device``.

    ``table`` is the argument of its entry points (see `mailbox_table`); None while it is not connected.
    """

    def __init__(self, manifest: Manifest, device: rt.HalDevice, uri: str):
        self.table: rt.DeviceArray | None = None
        self._manifest, self._device, self._uri = manifest, device, uri
        self._ranks, self._rank = manifest.model.tensor_parallel, manifest.model.rank
        self._mailbox_bytes = manifest.row_counts[-1] * manifest.model.config["hidden_size"] * _ELEMENT_BYTES
        self._bytes = memory_bytes(self._ranks, self._mailbox_bytes)
        self._memory: PeerMemory | None = None
        self._address = 0
        self._own: rt.DeviceArray | None = None

    def stand_alone(self) -> None:
        """As if there were no other ranks."""
        self.table = rt.asdevicearray(self._device, table_alone(self._ranks))

    def loop_back(self) -> None:
        """Connect the rank to itself, as if every rank had computed what it has."""
        self._own = rt.asdevicearray(self._device, np.zeros(self._bytes, np.uint8))
        table = looped_table(device_address(self._own, self._device), self._ranks, self._mailbox_bytes)
        self.table = rt.asdevicearray(self._device, table)

    def connect(self, all_gather: AllGather) -> None:
        """Connect the ranks that call this together; none of them may have a step under way."""
        if self._memory is None:
            self._memory = peer_memory(self._uri)
            self._address = self._memory.allocate(self._bytes)
        others = self._introductions(all_gather)
        self._memory.clear(self._address, self._bytes)
        all_gather(b"")  # until then another rank's step could not begin
        memories = [
            self._address if rank == self._rank else self._memory.open(bytes.fromhex(other.handle))
            for rank, other in enumerate(others)
        ]
        table = mailbox_table(memories, self._rank, self._mailbox_bytes)
        self.table = rt.asdevicearray(self._device, table)

    def disconnect(self) -> None:
        """Forget the other ranks, as after a step that failed: what had been sent may still lie in the mailboxes."""
        self.table = None

    def _introductions(self, all_gather: AllGather) -> "list[_Introduction]":
        own = _Introduction(
            rank=self._rank,
            ranks=self._ranks,
            model=self._manifest.model.name,
            entry_points=tuple(entry.name for entry in self._manifest.entry_points),
            mailbox_bytes=self._mailbox_bytes,
            host=socket.gethostname(),
            process=os.getpid(),
            handle=self._memory.handle(self._address).hex(),
        )
        gathered = [_Introduction.read(text) for text in all_gather(json.dumps(encode(own)).encode())]
        found = [other.rank for other in gathered]
        if found != list(range(self._ranks)):
            raise PredecodeError(
                f"the artifact is rank {self._rank} of {self._ranks}, and ranks {found} are connected, in this order; "
                "start every rank once, and gather in their order"
            )
        for other in gathered:
            for name in _ALIKE:
                theirs, ours = getattr(other, name), getattr(own, name)
                if theirs != ours:
                    raise PredecodeError(
                        f"rank {other.rank} has {name.replace('_', ' ')} {theirs}, rank {self._rank} has {ours}; ranks "
                        "need artifacts that were exported alike, and one host"
                    )
            if other.rank != self._rank and other.process == own.process:
                raise PredecodeError(
                    f"ranks {self._rank} and {other.rank} are in one process, which cannot open its own memory as "
                    "another's; run each rank in a process of its own"
                )
        return gathered


@dataclass(frozen=True, slots=True)
class _Introduction:
    """What a rank tells the others of itself."""

    rank: int
    ranks: int
    model: str
    entry_points: tuple[str, ...]
    mailbox_bytes: int
    host: str
    process: int
    handle: str

    @classmethod
    def read(cls, text: bytes) -> "_Introduction":
        try:
            return decode(cls, json.loads(text))
        except (ValueError, RecordError):
            names = ", ".join(field.name for field in fields(cls))
            raise PredecodeError(
                f"a rank introduces itself with {text[:60]!r}, expected {names}; give connect() a collective that "
                "returns every rank's bytes"
            ) from None


def peer_memory(uri: str) -> PeerMemory:
    """Memory on the device ``uri`` that other processes can open."""
    if uri == devices.EMULATED:
        from predecode.pipelines.emulation.shared_memory import SharedMemory

        return SharedMemory()
    driver, number = devices.numbered(uri)
    return MEMORY_OF_DRIVER[driver](number)
