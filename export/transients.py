"""Steps that wait for nothing while they are submitted: transient memory is the caller's, and results allocate at once.

As the compiler schedules it, a step allocates its transient buffers and frees them when it has ended. CUDA's driver
waits for both on the host, so that a step is submitted only when it and the one before are done. Passed as an argument,
by the compiler's own option, the transients need neither. Two things are left to do in the schedule:

- The option passes a buffer whose length is read at run time. Ranges that are no constants keep a command buffer from
  being recorded once for all steps; the length is known, and written in.
- Results are allocated after what the step waits for. New memory depends on nothing: only the execution waits.
"""

from enum import Enum

import iree.compiler.ir as ir

from predecode.export.stream_ir import walk

ASYNC_SUFFIX = "$async"
_BYTES = "iree.abi.transients.size.constant"


class Transients(Enum):
    """Whose a module's transient memory is: ALLOCATED in every call, or PASSED as the last argument before the fences.

    With PASSED every entry point takes a buffer of at least `passed_bytes`, also where that is 0.
    """

    ALLOCATED = ()
    PASSED = ("--iree-torch-externalize-transients",)

    @property
    def flags(self) -> tuple[str, ...]:
        """The compiler's options for it."""
        return self.value


def submitted_without_waiting(stream_ir: str) -> str:
    """The compiler's stream phase with what this file is about done to every entry point."""
    with ir.Context(), ir.Location.unknown():
        module = ir.Module.parse(stream_ir)
        for function in module.body.operations:
            if function.name != "util.func":
                continue
            for op in list(walk(function)):
                if op.name == "hal.buffer.length":
                    _replace(op, _constant(op, passed_bytes(function)))
                elif op.name == "stream.resource.alloca":
                    _allocate_at_once(op)
        return str(module)


def passed_bytes(function: ir.OpView) -> int:
    """Bytes that an entry point needs of the transient buffer passed to it."""
    if "iree.reflection" not in function.attributes:
        return 0
    reflection = ir.DictAttr(function.attributes["iree.reflection"])
    return ir.IntegerAttr(reflection[_BYTES]).value if _BYTES in reflection else 0


def _constant(before: ir.Operation, value: int) -> ir.Operation:
    index = ir.IndexType.get(before.context)
    return ir.Operation.create(
        "arith.constant",
        results=[index],
        attributes={"value": ir.IntegerAttr.get(index, value)},
        ip=ir.InsertionPoint(before),
    )


def _replace(op: ir.Operation, other: ir.Operation) -> None:
    op.results[0].replace_all_uses_with(other.results[0])
    op.erase()


def _allocate_at_once(op: ir.Operation) -> None:
    """``op`` without what it waits for, which whoever waited for ``op`` now waits for as well."""
    if len(op.operands) < 2:  # the size, then what is waited for
        return
    size, awaited = op.operands
    resource, timepoint = (result.type for result in op.results)
    attributes = {name: op.attributes[name] for name in ("affinity", "indeterminate_lifetime") if name in op.attributes}
    place = ir.InsertionPoint(op)
    at_once = ir.Operation.create(
        op.name, results=[resource, timepoint], operands=[size], attributes=attributes, ip=place
    )
    both = ir.Operation.create(
        "stream.timepoint.join", results=[timepoint], operands=[awaited, at_once.results[1]], ip=place
    )
    op.results[0].replace_all_uses_with(at_once.results[0])
    op.results[1].replace_all_uses_with(both.results[0])
    op.erase()
