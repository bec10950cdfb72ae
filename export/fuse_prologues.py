"""Puts prologue fusions and split products into a traced module (see `Prologue`, `SplitProduct`)."""

from collections.abc import Mapping, Sequence

import iree.compiler.ir as ir

from predecode.custom_kernels.prologue import Pays, Prologue
from predecode.custom_kernels.prologues import PROLOGUES
from predecode.custom_kernels.split_k import SPLIT_PRODUCTS
from predecode.custom_kernels.targets import Target
from predecode.export.traced_call import arguments_of, create_call, described, is_op_call, op_of


def fuse_prologues(block: ir.Block, target: Target) -> None:
    """Replace the calls of ``block`` that these stand for, in place, and drop calls that nothing reads then."""
    for operation in _calls(block):
        _split(operation, target)
    for operation in _calls(block):
        while operation is not None:
            operation = _fused(operation, target)
    for operation in reversed(_calls(block)):
        if not any(True for result in operation.results for _ in result.uses):
            operation.erase()


def _calls(block: ir.Block) -> list[ir.Operation]:
    return [operation.operation for operation in block.operations if is_op_call(operation.operation)]


def _split(operation: ir.Operation, target: Target) -> None:
    """Replace the call ``operation``, if it alone reads a product of which it should rather add up partial sums."""
    for split in SPLIT_PRODUCTS:
        if op_of(operation).name != split.summed:
            continue
        arguments = arguments_of(operation)
        product = arguments[split.through]
        given = _arguments(split.product, product.owner) if len(list(product.uses)) == 1 else None
        if given is None:
            continue
        partial = create_call(split.partial, given, operation)
        reader = create_call(split.reader, given | arguments | {"partials": partial.results[0]}, operation)
        if _replaces(operation, [partial, reader], split.pays, target):
            return


def _fused(operation: ir.Operation, target: Target) -> ir.Operation | None:
    """The call that has replaced the call ``operation``, if one pays."""
    for prologue in PROLOGUES:
        arguments = _arguments(prologue, operation)
        if arguments is None:
            continue
        fused = create_call(prologue.fused, arguments, operation)
        if _replaces(operation, [fused], prologue.pays, target):
            return fused
    return None


def _replaces(operation: ir.Operation, calls: Sequence[ir.Operation], pays: Pays, target: Target) -> bool:
    """Whether ``calls`` stand in place of ``operation`` now, the last with its results; otherwise they are gone.

    They do if the first one pays and all have kernels.
    """
    taken = [(op_of(call), described(call)) for call in calls]
    if pays(target, taken[0][1]) and all(op.launch_on(target, call) for op, call in taken):
        for old, new in zip(operation.results, calls[-1].results, strict=True):
            old.replace_all_uses_with(new)
        operation.erase()
        return True
    for call in reversed(calls):
        call.erase()
    return False


def _calls_op(owner: ir.Operation | ir.Block, name: str) -> bool:
    """Whether ``owner`` of a value calls the op called ``name``."""
    return not isinstance(owner, ir.Block) and is_op_call(owner) and op_of(owner).name == name


def _arguments(prologue: Prologue, consumer: ir.Operation | ir.Block) -> Mapping[str, ir.Value] | None:
    """What the fused op is called with instead of ``consumer``; None where that is not what the prologue stands for."""
    if not _calls_op(consumer, prologue.consumer):
        return None
    arguments = arguments_of(consumer)
    made = [(arguments.pop(name), index) for name, index in prologue.through.items()]
    producer = made[0][0].owner
    if not _calls_op(producer, prologue.producer):
        return None
    if any(value != producer.results[index] for value, index in made):
        return None
    given = arguments_of(producer)
    return arguments | {name: given[theirs] for name, theirs in prologue.producer_names.items()}
