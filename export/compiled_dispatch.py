"""What a compiled dispatch does: which bytes of its bindings it accesses, and whether it computes anything."""

import math
import re
from dataclasses import dataclass

import iree.compiler.ir as ir

from predecode.export.stream_ir import constant_of, evaluate, uniform_values, walk

_INDEX_OPERATIONS = {"arith.constant", "arith.index_cast", "arith.index_castui"}
_MOVING_EXTENSIONS = {"iree_linalg_ext.scatter", "iree_linalg_ext.gather", "iree_linalg_ext.map_store"}
_VALUE_DIALECTS = ("arith.", "math.", "iree_linalg_ext.")
_STRUCTURAL_LINALG = {"linalg.generic", "linalg.yield", "linalg.index", "linalg.fill", "linalg.transpose"}
_STRUCTURAL_LINALG |= {"linalg.copy", "linalg.broadcast", "linalg.pack", "linalg.unpack"}
_ELEMENT_BITS = re.compile(r"(?:f|bf|i|si|ui)(\d+)")
_BOUND_TYPE = re.compile(r"(?:tensor|memref)<((?:\d+x)*)([a-zA-Z]\w*)>>?$")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes that a compiled dispatch accesses: which binding, from which byte (None: not understood), how many."""

    binding: int
    first: int | None
    size: int


def computes(executable) -> bool:
    """Whether any operation of a compiled executable makes a new value (index arithmetic does not count)."""
    for op in walk(executable):
        name = op.name
        if name in _INDEX_OPERATIONS or name in _MOVING_EXTENSIONS or name in _STRUCTURAL_LINALG:
            continue
        if name.startswith("linalg."):
            return True
        if name.startswith(_VALUE_DIALECTS) and any(str(r.type) != "index" for r in op.results):
            return True
    return False


def accessed_spans(executable, dispatch: ir.Operation) -> list[Span]:
    """What a compiled dispatch accesses, from the tensors that it reads and writes its bindings as, in its order.

    The compiler binds tensors of one buffer together; a kernel of ours keeps its order of operands here.
    """
    spans = []
    uniform = [constant_of(value) % 2**32 for value in uniform_values(dispatch)]
    for op in walk(executable):
        bound = _BOUND_TYPE.search(str(op.results[0].type)) if op.name == "stream.binding.subspan" else None
        if bound is None:
            continue
        extents = [int(extent) for extent in bound[1].split("x") if extent]
        bits = 8 if bound[2].startswith("f8") else int(_ELEMENT_BITS.fullmatch(bound[2])[1])
        binding = ir.BlockArgument(op.operands[0])
        # The function takes all bindings, then the dispatch's 32-bit constants.
        bindings = len(binding.owner.arguments) - len(uniform)
        first = evaluate(op.operands[1], {bindings + i: value for i, value in enumerate(uniform)})
        spans.append(Span(binding.arg_number, first, math.prod(extents) * bits // 8))
    return spans
