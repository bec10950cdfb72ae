"""Puts prologue fusions and split products into a traced module (see `Prologue`, `SplitProduct`)."""

from collections.abc import Mapping

import iree.compiler.ir as ir

from predecode.custom_kernels.prologue import Prologue
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
        if isinstance(product.owner, ir.Block) or not is_op_call(product.owner) or len(list(product.uses)) > 1:
            continue
        given = _arguments(split.product, product.owner)
        if given is None:
            continue
        partial = create_call(split.partial, given, operation)
        reader = create_call(split.reader, given | arguments | {"partials": partial.results[0]}, operation)
        calls = [(split.partial, described(partial)), (split.reader, described(reader))]
        if split.pays(target, calls[0][1]) and all(op.launch_on(target, call) for op, call in calls):
            for old, new in zip(operation.results, reader.results, strict=True):
                old.replace_all_uses_with(new)
            operation.erase()
            return
        reader.erase()
        partial.erase()


def _fused(operation: ir.Operation, target: Target) -> ir.Operation | None:
    """The call that has replaced the call ``operation``, if one pays."""
    for prologue in PROLOGUES:
        arguments = _arguments(prologue, operation)
        if arguments is None:
            continue
        fused = create_call(prologue.fused, arguments, operation)
        call = described(fused)
        if prologue.pays(target, call) and prologue.fused.launch_on(target, call):
            for old, new in zip(operation.results, fused.results, strict=True):
                old.replace_all_uses_with(new)
            operation.erase()
            return fused
        fused.erase()
    return None


def _arguments(prologue: Prologue, consumer: ir.Operation) -> Mapping[str, ir.Value] | None:
    """What the fused op is called with instead of ``consumer``; None where that is not what the prologue stands for."""
    if op_of(consumer).name != prologue.consumer:
        return None
    arguments = arguments_of(consumer)
    made = [(arguments.pop(name), index) for name, index in prologue.through.items()]
    producer = made[0][0].owner
    if isinstance(producer, ir.Block) or not is_op_call(producer) or op_of(producer).name != prologue.producer:
        return None
    if any(value != producer.results[index] for value, index in made):
        return None
    given = arguments_of(producer)
    return arguments | {name: given[theirs] for name, theirs in prologue.producer_names.items()}
