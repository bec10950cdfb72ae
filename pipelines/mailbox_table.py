"""Where tensor-parallel ranks send each other partial sums: a table of device addresses, which a step's kernels follow.

Every rank has memory with a mailbox for each turn and each rank that sends to it. A mailbox is zero until something
arrives in it, and whoever takes that leaves zeros (see custom_kernels/device/mailbox.h). A rank at address 0 takes no
part.
"""

from collections.abc import Sequence

import numpy as np

TURNS = 2
"""Mailboxes that take turns. What is sent in one turn may arrive before all has been taken that was sent in the turn
before, but not earlier: no rank begins a turn before every other one has begun the last."""
SENT, ARRIVING = 0, 1
"""Of the table's second axis: where a rank's partial sums go, and where it takes the others' from."""


def table_shape(ranks: int) -> tuple[int, int, int]:
    """[turn, sent or arriving, rank]."""
    return TURNS, 2, ranks


def memory_bytes(ranks: int, mailbox_bytes: int) -> int:
    """Of the memory in which a rank has its mailboxes."""
    return TURNS * ranks * mailbox_bytes


def mailbox_table(memories: Sequence[int], rank: int, mailbox_bytes: int) -> np.ndarray:
    """The table of ``rank``, int64 `table_shape`; ``memories`` are the addresses at which it sees those of all."""
    ranks = len(memories)
    table = np.zeros(table_shape(ranks), np.int64)
    for turn in range(TURNS):
        for other, memory in enumerate(memories):
            table[turn, SENT, other] = memory + _offset(turn, rank, ranks, mailbox_bytes)
            table[turn, ARRIVING, other] = memories[rank] + _offset(turn, other, ranks, mailbox_bytes)
    return table


def table_alone(ranks: int) -> np.ndarray:
    """The table of a rank that alone takes part: its partial sums are the sums."""
    return np.zeros(table_shape(ranks), np.int64)


def looped_table(memory: int, ranks: int, mailbox_bytes: int) -> np.ndarray:
    """The table of a rank that stands for all: what it sends to another arrives as if that one had sent it."""
    table = mailbox_table([memory] * ranks, 0, mailbox_bytes)
    table[:, SENT] = table[:, ARRIVING]
    return table


def _offset(turn: int, sender: int, ranks: int, mailbox_bytes: int) -> int:
    return (turn * ranks + sender) * mailbox_bytes
