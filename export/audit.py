"""What a compiled module does, read from the compiler's own schedule.

The stream phase lists every command of an entry point with the buffer ranges it touches and how; the HAL phase
has the workgroup counts. A copy, a fill, or a compiled dispatch that computes nothing is a fault unless the
target's exemptions name it.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import iree.compiler.ir as ir

from predecode.custom_kernels.composition import shown_name
from predecode.export.inject import DispatchKey
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Audit, Binding, Dispatch, Exemption

_ACCESS = {1: "read", 2: "write", 3: "read_write"}
_INDEX_OPERATIONS = {"arith.constant", "arith.index_cast", "arith.index_castui"}
_MOVING_EXTENSIONS = {"iree_linalg_ext.scatter", "iree_linalg_ext.gather", "iree_linalg_ext.map_store"}
_VALUE_DIALECTS = ("arith.", "math.", "iree_linalg_ext.")
_STRUCTURAL_LINALG = {"linalg.generic", "linalg.yield", "linalg.index", "linalg.fill", "linalg.transpose"}
_STRUCTURAL_LINALG |= {"linalg.copy", "linalg.broadcast", "linalg.pack", "linalg.unpack"}
_ELEMENT_BITS = re.compile(r"(?:f|bf|i|si|ui)(\d+)")


class AuditError(PredecodeError):
    """A compiled module copies, fills, or moves data for nothing."""


def audit_entry_points(
    stream_ir: str,
    hal_ir: str,
    arguments: Mapping[str, Sequence[str]],
    exemptions: Sequence[Exemption],
    touched: Mapping[DispatchKey, Mapping[int, int]],
) -> dict[str, Audit]:
    """Audit of each entry point; ``arguments`` gives the argument names of each, in order.

    Bytes are those of the bound ranges, but for bindings that ``touched`` (see `Injection`) gives less for.

    Raises `AuditError` naming the first command that is a fault and not exempted (an exemption's name is a
    shell pattern over dispatch names, or "copy" or "fill").
    """
    with ir.Context():
        stream, hal = ir.Module.parse(stream_ir), ir.Module.parse(hal_ir)
        executables = {_symbol(op): op for op in stream.body.operations if op.name == "stream.executable"}
        functions = {_symbol(op): op for op in stream.body.operations if op.name == "util.func"}
        result = {}
        for name, argument_names in arguments.items():
            counts = _workgroup_counts(hal, name)
            reader = _EntryReader(
                name, argument_names, functions[f"{name}$async"], executables, counts, touched
            )
            result[name] = reader.audit(exemptions)
        return result


@dataclass(slots=True)
class _EntryReader:
    name: str
    arguments: Sequence[str]
    function: ir.OpView
    executables: Mapping[str, ir.OpView]
    workgroups: Mapping[str, list[tuple[int, ...]]]
    touched: Mapping[DispatchKey, Mapping[int, int]]

    def audit(self, exemptions: Sequence[Exemption]) -> Audit:
        operations = list(_walk(self.function))
        copies = sum(op.name == "stream.cmd.copy" for op in operations)
        fills = sum(op.name == "stream.cmd.fill" for op in operations)
        taken = {symbol: iter(counts) for symbol, counts in self.workgroups.items()}
        dispatches, faults = [], ["copy"] * copies + ["fill"] * fills
        for op in operations:
            if op.name == "stream.cmd.dispatch":
                dispatch, moves_only = self._dispatch(op, taken)
                dispatches.append(dispatch)
                if moves_only:
                    faults.append(dispatch.name)
        return Audit(
            dispatches=tuple(dispatches),
            copies=copies,
            fills=fills,
            transient_bytes=sum(_transient_bytes(op) for op in operations),
            in_place=tuple(
                sorted(
                    {
                        b.name
                        for d in dispatches
                        for b in d.bindings
                        if b.access == "read_write" and b.name in self.arguments
                    }
                )
            ),
            exempted=self._excuse(faults, exemptions),
        )

    def _excuse(self, faults: Iterable[str], exemptions: Sequence[Exemption]) -> tuple[Exemption, ...]:
        used = []
        for fault in faults:
            reasons = [e.reason for e in exemptions if fnmatchcase(fault, e.name)]
            if not reasons:
                what = (
                    f"a {fault}" if fault in ("copy", "fill") else f"dispatch {fault}, which only moves data"
                )
                raise AuditError(
                    f"{self.name}: the compiled module contains {what}; change the ops around it so that it is "
                    "not needed, or name it with a reason in the target's audit exemptions"
                )
            used.append(Exemption(fault, reasons[0]))
        return tuple(dict.fromkeys(used))

    def _dispatch(self, op: ir.Operation, taken) -> tuple[Dispatch, bool]:
        entry = str(next(iter(ir.ArrayAttr(op.attributes["entry_points"]))))
        path = [part.removeprefix("@").strip('"') for part in entry.split("::")]
        executable = self.executables.get(path[0])
        injected = re.fullmatch(r"predecode\.(\w+)\.\d+", path[-1])
        kernel = executable is None or injected is not None
        name = injected[1] if injected else path[-1].removeprefix(f"{self.name}$async_")
        if kernel:
            name = shown_name(name)
        workgroups = next(taken[path[-1]])
        # A compiled-in kernel has constants in its text, and operands that are only the compiler's offsets.
        constants = () if injected else _uniform_constants(op)
        partly = self.touched.get((path[-1], constants, workgroups), {})
        sizes = partly if executable is None else _compiled_binding_bytes(executable, partly)
        bindings = tuple(self._bindings(op, sizes))
        dispatch = Dispatch(
            name=name,
            kind="kernel" if kernel else "compiled",
            workgroups=workgroups,
            # A kernel that is given a buffer to write in place stores into it and does not read it.
            bytes_read=sum(b.bytes for b in bindings if b.access == "read"),
            bytes_written=sum(b.bytes for b in bindings if b.access != "read"),
            bindings=bindings,
        )
        return dispatch, not kernel and not _computes(executable)

    def _bindings(self, op: ir.Operation, sizes: Mapping[int, int]):
        _, uniform, count, *_ = _segments(op)
        operands = list(op.operands)[uniform:]
        accesses = [ir.IntegerAttr(a).value for a in ir.ArrayAttr(op.attributes["resource_accesses"])]
        for i, access in enumerate(accesses):
            length = _constant(operands[3 * count + i])
            yield Binding(self._source(operands[i]), _ACCESS[access], sizes.get(i, length))

    def _source(self, value: ir.Value) -> str:
        """Name of the argument or parameter that a resource captured by an execution region comes from."""
        execute = value.owner.owner
        captured = execute.operands[ir.BlockArgument(value).arg_number]
        producer = captured.owner
        if producer.name == "stream.tensor.import":
            return self.arguments[ir.BlockArgument(producer.operands[0]).arg_number]
        if producer.name == "util.global.load":
            return str(producer.attributes["global"]).removeprefix("@").strip('"')
        return "transient" if "transient" in str(captured.type) else "result"


def _symbol(op) -> str:
    return ir.StringAttr(op.attributes["sym_name"]).value


def _walk(root) -> Iterable[ir.Operation]:
    for region in root.regions:
        for block in region.blocks:
            for op in block.operations:
                yield op.operation
                yield from _walk(op.operation)


def _segments(op: ir.Operation) -> list[int]:
    return list(ir.DenseI32ArrayAttr(op.attributes["operandSegmentSizes"]))


def _uniform_constants(op: ir.Operation) -> tuple[int, ...]:
    _, uniform, *_ = _segments(op)
    return tuple(_constant(value) for value in list(op.operands)[:uniform])


def _constant(value: ir.Value) -> int:
    return ir.IntegerAttr(value.owner.attributes["value"]).value


def _transient_bytes(op: ir.Operation) -> int:
    if op.name != "stream.resource.alloca" or "transient" not in str(op.results[0].type):
        return 0
    return _constant(op.operands[0])


def _workgroup_counts(hal: ir.Module, entry: str) -> dict[str, list[tuple[int, ...]]]:
    """Workgroups of each function that ``entry`` dispatches, in the order its command buffers record them."""
    recorders = re.compile(rf"_*{re.escape(entry)}\$async(_memoize_apply.*)?")
    counts: dict[str, list[tuple[int, ...]]] = {}
    for function in hal.body.operations:
        if function.name != "util.func" or not recorders.fullmatch(_symbol(function)):
            continue
        for op in _walk(function):
            if op.name == "hal.command_buffer.dispatch":
                symbol = str(op.operands[2].owner.attributes["entry_point"]).split("::")[-1]
                counts.setdefault(symbol.removeprefix("@").strip('"'), []).append(
                    tuple(_constant(op.operands[i]) for i in (3, 4, 5))
                )
    return counts


def _computes(executable) -> bool:
    """Whether any operation of a compiled executable makes a new value (index arithmetic does not count)."""
    for op in _walk(executable):
        name = op.name
        if name in _INDEX_OPERATIONS or name in _MOVING_EXTENSIONS or name in _STRUCTURAL_LINALG:
            continue
        if name.startswith("linalg."):
            return True
        if name.startswith(_VALUE_DIALECTS) and any(str(r.type) != "index" for r in op.results):
            return True
    return False


def _compiled_binding_bytes(executable, touched: Mapping[int, int]) -> dict[int, int]:
    """Bytes of each binding of a compiled dispatch, from the tensors or bytes it is read or written as.

    A binding may hold several buffers of the call; ``touched`` gives less for some of them, by place in the call.
    """
    sizes = {}
    subspans = (op for op in _walk(executable) if op.name == "stream.binding.subspan")
    for place, op in enumerate(subspans):
        tensor = re.search(r"(?:tensor|memref)<((?:\d+x)*)([a-zA-Z]\w*)>>?$", str(op.results[0].type))
        if tensor:
            extents = [int(extent) for extent in tensor[1].split("x") if extent]
            bits = 8 if tensor[2].startswith("f8") else int(_ELEMENT_BITS.fullmatch(tensor[2])[1])
            index = ir.BlockArgument(op.operands[0]).arg_number
            sizes[index] = sizes.get(index, 0) + touched.get(place, math.prod(extents) * bits // 8)
    return sizes
