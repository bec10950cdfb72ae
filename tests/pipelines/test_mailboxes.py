"""Where ranks send each other partial sums, and how they find each other."""

import ctypes
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import iree.runtime as rt
import numpy as np
import pytest

from predecode.pipelines import DecodeSession, peer_memory
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.mailbox_table import (
    ARRIVING,
    SENT,
    TURNS,
    looped_table,
    mailbox_table,
    memory_bytes,
    table_alone,
)
from predecode.pipelines.mailboxes import Mailboxes
from tests.connected_ranks import run_ranks
from tests.pipelines.shared_by_driver import SIZE, write_to_the_next

BYTES, RANKS = 256, 3
MEMORIES = [10_000, 20_000, 30_000]


def test_what_a_rank_sends_is_where_the_other_looks():
    tables = [mailbox_table(MEMORIES, rank, BYTES) for rank in range(RANKS)]
    places = []
    for turn in range(TURNS):
        for sender in range(RANKS):
            for reader in range(RANKS):
                place = tables[sender][turn, SENT, reader]
                assert place == tables[reader][turn, ARRIVING, sender]
                assert MEMORIES[reader] <= place <= MEMORIES[reader] + memory_bytes(RANKS, BYTES) - BYTES
                places.append(int(place))
    assert np.diff(sorted(places)).min() >= BYTES, "mailboxes do not overlap"
    assert len(places) == TURNS * RANKS * RANKS


def test_a_rank_with_itself():
    looped = looped_table(MEMORIES[0], RANKS, BYTES)
    assert (looped[:, SENT] == looped[:, ARRIVING]).all()
    assert len(np.unique(looped)) == TURNS * RANKS
    assert not table_alone(RANKS).any()


class Memory:
    """Stands for a device's."""

    def __init__(self):
        self.cleared = []

    def allocate(self, size):
        return MEMORIES[1]

    def clear(self, address, size):
        self.cleared.append((address, size))

    def handle(self, address):
        return bytes([1])

    def open(self, handle):
        return MEMORIES[handle[0]]


@pytest.fixture
def mailboxes(monkeypatch) -> Mailboxes:
    """Those of the second of three ranks, of at most 4 rows of 32 columns."""
    monkeypatch.setattr("predecode.pipelines.mailboxes.peer_memory", lambda uri: Memory())
    model = SimpleNamespace(tensor_parallel=RANKS, rank=1, name="small", config={"hidden_size": 32})
    entries = (SimpleNamespace(name="step_rows_1"), SimpleNamespace(name="step_rows_4"))
    manifest = SimpleNamespace(model=model, row_counts=(1, 4), entry_points=entries)
    return Mailboxes(manifest, rt.get_device("local-sync"), "local-sync")


def introduced(text: bytes, change=lambda rank, introduction: introduction) -> list[bytes]:
    """What all ranks would say, given what rank 1 does."""
    own, others = json.loads(text), []
    for rank in range(RANKS):
        said = {**own, "rank": rank, "process": own["process"] + rank - 1, "handle": bytes([rank]).hex()}
        others.append(json.dumps(change(rank, said)).encode())
    return others


def test_ranks_that_agree_are_connected(mailboxes):
    rounds = []

    def all_gather(data):
        rounds.append((data, list(mailboxes._memory.cleared)))
        return introduced(data) if data else [b""] * RANKS

    assert mailboxes.table is None
    mailboxes.connect(all_gather)
    np.testing.assert_array_equal(mailboxes.table.to_host(), mailbox_table(MEMORIES, 1, BYTES))
    assert [bool(data) for data, _ in rounds] == [True, False]
    # Cleared when all are known to have no step under way, and before any can begin one.
    assert [cleared for _, cleared in rounds] == [[], [(MEMORIES[1], memory_bytes(RANKS, BYTES))]]
    mailboxes.disconnect()
    assert mailboxes.table is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rank, said: {**said, "rank": 2 - rank}, r"ranks \[2, 1, 0\] are connected"),
        (lambda rank, said: {**said, "rank": 1}, r"ranks \[1, 1, 1\] are connected"),
        (lambda rank, said: {**said, "ranks": 3 + rank // 2}, "rank 2 has ranks 4, rank 1 has 3"),
        (lambda rank, said: {**said, "model": f"small{rank // 2}"}, "rank 0 has model small0, rank 1 has small"),
        (lambda rank, said: {**said, "entry_points": ["step_rows_1"]} if rank else said, "rank 1 has entry points"),
        (lambda rank, said: {**said, "mailbox_bytes": 512} if rank == 2 else said, "mailbox bytes 512"),
        (lambda rank, said: {**said, "host": "elsewhere"} if rank == 0 else said, "host elsewhere"),
        (lambda rank, said: {**said, "process": os.getpid()}, "are in one process"),
        (lambda rank, said: {"rank": rank}, "introduces itself with"),
        (lambda rank, said: rank, "introduces itself with b'0', expected rank, ranks, model"),
    ],
)
def test_ranks_that_differ_are_refused(mailboxes, change, message):
    if "entry points" in message:
        message = "entry points"
    with pytest.raises(PredecodeError, match=message) as caught:
        mailboxes.connect(lambda data: introduced(data, change))
    assert "\n" not in str(caught.value)
    assert mailboxes.table is None


def test_an_artifact_whose_caller_adds_up_connects_to_nobody(step_artifact):
    session = DecodeSession.open(step_artifact)
    with pytest.raises(PredecodeError, match="--reduce none, and connects to no ranks; export with peers"):
        session.connect(lambda data: [data])
    session.stand_alone()
    session.loop_back()


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("driver") / "libdriver.so"
    source = Path(__file__).with_name("gpu_driver_stand_in.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, source], check=True)
    return str(path)


@pytest.mark.parametrize("name", ["cuda", "hip"])
def test_processes_write_to_each_others_memory(driver, name):
    (first_before, first), (second_before, second) = run_ranks(write_to_the_next, [(driver, name)] * 2)
    assert first_before == second_before == bytes(SIZE)
    assert first == bytes(SIZE - 1) + b"\2"
    assert second == bytes(SIZE - 1) + b"\1"


@pytest.mark.parametrize("name", ["cuda", "hip"])
def test_a_drivers_error_is_one_line(driver, name, monkeypatch):
    monkeypatch.setattr(peer_memory, "_library", lambda library: ctypes.CDLL(driver))
    memory = peer_memory.MEMORY_OF_DRIVER[name](0)
    with pytest.raises(PredecodeError, match=r"^(cuMemAlloc_v2|hipExtMallocWithFlags) failed: out of memory$"):
        memory.allocate(2**41)
    with pytest.raises(PredecodeError, match=r"OpenMemHandle(_v2)? failed: invalid"):
        memory.open(bytes(64))


def test_without_a_driver_its_library_is_named():
    with pytest.raises(PredecodeError, match=r"libnowhere\.so, the GPU driver's library, cannot be loaded"):
        peer_memory._library("libnowhere.so")
