"""Reads a part of a buffer once, front to back, and gives the exclusive or of its words: how fast memory can be read.

No part of a model: an artifact carries it as a module of its own, to measure the bandwidth, and the time of launches
that only read, that times of the model's dispatches are held against.
"""

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target

PIECE_WORDS = 2**12
"""32-bit words that one workgroup reads, 16 KiB, all under way at once: the fastest on an H200, few or many bytes."""
PIECE_BYTES = 4 * PIECE_WORDS
THREADS = 256


def reference(data: torch.Tensor, before: torch.Tensor, first: int, pieces: int) -> torch.Tensor:
    words = data[first * PIECE_WORDS : (first + pieces) * PIECE_WORDS].view(pieces, PIECE_WORDS)
    while words.shape[1] > 1:
        left, right = words.chunk(2, dim=1)
        words = left ^ right
    return words[:, 0] ^ before[0]


def _fake(data, before, first, pieces):
    return data.new_empty(pieces)


def _launch(target: Target, call: Call) -> Launch | None:
    return Launch(
        source="stream_read.hip" if target.has_hip_kernels else "stream_read.cpp",
        symbol="stream_read",
        operands=("data", "before"),
        constants=(call["first"],),
        workgroups=(call["pieces"], 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("PIECE_WORDS", PIECE_WORDS), ("THREADS", THREADS)),
    )


def _touched(call: Call) -> dict[str, int]:
    return {"data": call["pieces"] * PIECE_BYTES, "before": 4}


OP = define_op(
    "stream_read(Tensor data, Tensor before, int first, int pieces) -> Tensor",
    reference,
    _fake,
    launch=_launch,
    touched=_touched,
)


def stream_read(data: torch.Tensor, before: torch.Tensor, first: int, pieces: int) -> torch.Tensor:
    """Exclusive or of each of ``pieces`` pieces from piece ``first`` of ``data`` int32 [N] on, and of ``before[0]``.

    A piece is `PIECE_WORDS` words. ``before`` int32 [1 or more] is what another reading gave: one with its result
    starts when that one has ended. Returns int32 [pieces].
    """
    for name, tensor in (("data", data), ("before", before)):
        if tensor.dtype != torch.int32 or tensor.dim() != 1 or not len(tensor):
            raise TypeError(f"stream_read: {name} is {tensor.dtype}{list(tensor.shape)}, expected int32 [1 or more]")
    if not (first >= 0 and pieces > 0 and (first + pieces) * PIECE_WORDS <= len(data)):
        raise ValueError(
            f"stream_read: {pieces} pieces from piece {first} on, of {len(data)} words; expected at least one, all of "
            f"them among the {len(data) // PIECE_WORDS} whole pieces"
        )
    return torch.ops.predecode.stream_read(data, before, first, pieces)
