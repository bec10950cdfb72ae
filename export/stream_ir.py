"""Reading the compiler's stream phase: commands, the buffers they touch, and what those are called."""

from collections.abc import Iterator

import iree.compiler.ir as ir

ACCESSES = {1: "read", 2: "write", 3: "read_write"}
# Of what is passed as unsigned 32-bit words.
_CASTS = {"arith.index_cast", "arith.index_castui", "arith.extui"}


def symbol_of(op) -> str:
    """Name of a function, global or executable."""
    return ir.StringAttr(op.attributes["sym_name"]).value


def reference_of(attribute: ir.Attribute) -> list[str]:
    """Parts of a symbol reference: ``@"a"::@b`` is ["a", "b"]."""
    return [part.removeprefix("@").strip('"') for part in str(attribute).split("::")]


def walk(root) -> Iterator[ir.Operation]:
    """All operations inside ``root``, in order."""
    for region in root.regions:
        for block in region.blocks:
            for op in block.operations:
                yield op.operation
                yield from walk(op.operation)


def segments_of(op: ir.Operation) -> list[int]:
    """How many operands each of the operation's variadic operands has."""
    return list(ir.DenseI32ArrayAttr(op.attributes["operandSegmentSizes"]))


def uniform_values(op: ir.Operation) -> list[ir.Value]:
    """The 32-bit constants that a dispatch passes."""
    return list(op.operands)[: segments_of(op)[1]]


def constant_of(value: ir.Value) -> int:
    """Value of an arith.constant."""
    return ir.IntegerAttr(value.owner.attributes["value"]).value


def storage_of(value: ir.Value) -> tuple[ir.Value, int]:
    """The buffer behind a resource, and at which byte of it the resource starts.

    Execution regions capture resources, ranges are cut out of them, and waiting gives them a new name.
    """
    offset = 0
    while True:
        owner = value.owner
        if isinstance(owner, ir.Block):
            region = owner.owner
            if region.name != "stream.cmd.execute":
                return value, offset
            value = region.operands[ir.BlockArgument(value).arg_number]
        elif owner.name == "stream.resource.subview":
            # Operands: the resource, its size, the range's offset and size.
            offset += constant_of(owner.operands[2])
            value = owner.operands[0]
        elif owner.name == "stream.timepoint.await":
            value = _awaited(owner, value)
        else:
            return value, offset


def _awaited(owner, value: ir.Value) -> ir.Value:
    resources = segments_of(owner)[0]
    return owner.operands[:resources][ir.OpResult(value).result_number]


def evaluate(value: ir.Value, arguments: dict[int, int]) -> int | None:
    """An index inside a compiled dispatch whose block arguments have these values; None if not understood."""
    owner = value.owner
    if isinstance(owner, ir.Block):
        return arguments.get(ir.BlockArgument(value).arg_number)
    if owner.name == "arith.constant":
        return constant_of(value)
    if owner.name == "util.assume.int":
        return evaluate(owner.operands[ir.OpResult(value).result_number], arguments)
    if owner.name in _CASTS:
        return evaluate(owner.operands[0], arguments)
    if owner.name in ("arith.shli", "arith.ori"):
        left, right = (evaluate(operand, arguments) for operand in owner.operands)
        if left is None or right is None:
            return None
        return left << right if owner.name == "arith.shli" else left | right
    return None


def parameter_names(stream: ir.Module) -> dict[str, str]:
    """Name in the parameter archive of each global that holds one."""
    names = {}
    for op in walk(stream.operation):
        if op.name == "util.global.store":
            loaded = storage_of(op.operands[0])[0]
            load = loaded.owner
            if not isinstance(load, ir.Block) and load.name == "stream.cmd.parameter.load":
                scopes = segments_of(load)[0]
                key = load.operands[scopes + ir.OpResult(loaded).result_number].owner
                names[reference_of(op.attributes["global"])[0]] = ir.StringAttr(key.attributes["value"]).value
    return names
