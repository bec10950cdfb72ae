"""An op's CPU kernel called as the C function that it is: any shapes at once, with no module compiled for them."""

import ctypes
import itertools
from functools import cache

import torch

from predecode.custom_kernels.composition import Composition
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import Call, Op
from predecode.custom_kernels.targets import CPU
from predecode.custom_kernels.toolchain import Toolchain
from tests.custom_kernels.host_library import load_object

_ENTRY = "kernel"
POISON = 0xA5
"""Byte of results before they are written."""


def call_kernel(op: Op, arguments: tuple) -> tuple[torch.Tensor, ...]:
    """Results of ``op``'s kernel; what it leaves unwritten is poison."""
    names = [argument.name for argument in op.overload._schema.arguments]
    shapes = [a.to("meta") if isinstance(a, torch.Tensor) else a for a in arguments]
    results = op.fake(*shapes)
    results = results if isinstance(results, tuple) else (results,)
    given = dict(zip(names, arguments, strict=True))
    launch = op.launch_on(CPU, Call(dict(zip(names, shapes, strict=True)), results))
    memory = [_poisoned(r) if i not in op.in_place else given[op.in_place[i]].clone() for i, r in enumerate(results)]
    places = {name: memory[i] for i, name in op.in_place.items()}
    pointers = [places.get(name, given[name]) for name in launch.operands]
    pointers += [tensor for i, tensor in enumerate(memory) if i not in op.in_place]
    _run(launch, pointers)
    return tuple(memory)


def _run(launch: Launch, tensors: list[torch.Tensor]) -> None:
    function = _function(launch.source, launch.symbol, launch.defines, len(tensors))
    assert all(tensor.is_contiguous() for tensor in tensors)
    passed = [part for tensor in tensors for part in (ctypes.c_void_p(tensor.data_ptr()), ctypes.c_int64(0))]
    passed += map(ctypes.c_int64, launch.constants)
    for z, y, x in itertools.product(*(range(extent) for extent in reversed(launch.workgroups))):
        function(*passed, *map(ctypes.c_int64, (x, y, z)))


@cache
def _function(source: str, symbol: str, defines: tuple, pointers: int):
    launch = Launch(source, symbol, (), (), (1, 1, 1), defines=defines)
    code = Toolchain().build(Composition.of(launch, pointers), CPU)
    # The kernel's own symbol is hidden.
    return load_object(code.path, f"--defsym={_ENTRY}={launch.linked_symbol}")[_ENTRY]


def _poisoned(like: torch.Tensor) -> torch.Tensor:
    count = like.numel() * like.itemsize
    return torch.full((count,), POISON, dtype=torch.uint8).view(like.dtype).reshape(like.shape)
