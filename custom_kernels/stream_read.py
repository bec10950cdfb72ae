"""Reads a buffer once, front to back, and gives the exclusive or of its words: how fast memory can be read.

No part of a model: an artifact carries it as a module of its own, to measure the bandwidth that times of the
model's dispatches are held against.
"""

import torch

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, define_op
from predecode.custom_kernels.targets import Target

PIECE_WORDS = 2**15
"""32-bit words that one workgroup reads, 64 KiB: small enough for an even end, large enough to be mostly reading."""
THREADS = 256


def reference(data: torch.Tensor) -> torch.Tensor:
    pieces = data.view(-1, PIECE_WORDS)
    while pieces.shape[1] > 1:
        left, right = pieces.chunk(2, dim=1)
        pieces = left ^ right
    return pieces[:, 0].clone()


def _fake(data):
    return data.new_empty(data.shape[0] // PIECE_WORDS)


def _launch(target: Target, call: Call) -> Launch | None:
    return Launch(
        source="stream_read.hip" if target.has_hip_kernels else "stream_read.cpp",
        symbol="stream_read",
        operands=("data",),
        constants=(),
        workgroups=(call["data"].shape[0] // PIECE_WORDS, 1, 1),
        workgroup_size=(THREADS, 1, 1),
        defines=(("PIECE_WORDS", PIECE_WORDS), ("THREADS", THREADS)),
    )


OP = define_op("stream_read(Tensor data) -> Tensor", reference, _fake, launch=_launch)


def stream_read(data: torch.Tensor) -> torch.Tensor:
    """Exclusive or of each piece of ``data`` int32 [N], N a multiple of `PIECE_WORDS`: int32 [N / PIECE_WORDS]."""
    if data.dtype != torch.int32 or data.dim() != 1 or not len(data) or len(data) % PIECE_WORDS:
        raise TypeError(
            f"stream_read: data is {data.dtype}{list(data.shape)}, expected int32 [a multiple of {PIECE_WORDS}]"
        )
    return torch.ops.predecode.stream_read(data)
