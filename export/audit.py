"""What a compiled module does, read from the compiler's own schedule.

The stream phase lists every command of an entry point with the buffer ranges it touches and how; the HAL phase
has the workgroup counts. A copy, a fill, or a compiled dispatch that computes nothing is a fault unless the
target's exemptions name it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import iree.compiler.ir as ir

from predecode.custom_kernels.composition import shown_name
from predecode.export.compiled_dispatch import accessed_spans, computes
from predecode.export.data_dependencies import Access, dependencies, through
from predecode.export.inject import DispatchKey, InjectedKernel
from predecode.export.stream_ir import (
    ACCESSES,
    constant_of,
    parameter_names,
    reference_of,
    segments_of,
    storage_of,
    symbol_of,
    uniform_values,
    walk,
)
from predecode.export.touched import Touched
from predecode.export.transients import ASYNC_SUFFIX, passed_bytes
from predecode.pipelines.errors import PredecodeError
from predecode.pipelines.manifest import Audit, Binding, Dispatch, Exemption

_OBJECT_FILE = re.compile(r'path = "([^"]+)"')
_COPY, _FILL, _DISPATCH = "stream.cmd.copy", "stream.cmd.fill", "stream.cmd.dispatch"


class AuditError(PredecodeError):
    """A compiled module copies, fills, or moves data for nothing."""


def audit_entry_points(
    stream_ir: str,
    hal_ir: str,
    arguments: Mapping[str, Sequence[str]],
    exemptions: Sequence[Exemption],
    touched: Mapping[DispatchKey, Mapping[int, Touched]],
    kernels: Sequence[InjectedKernel] = (),
) -> dict[str, Audit]:
    """Audit of each entry point; ``arguments`` gives the argument names of each, in order.

    Bytes are those of the bound ranges, but for bindings that ``touched`` (see `Injection`) gives less for.
    ``kernels`` are those that the manifest lists, in its order.

    Raises `AuditError` naming the first command that is a fault and not exempted (an exemption's name is a
    shell pattern over dispatch names, or "copy" or "fill").
    """
    with ir.Context():
        stream, hal = ir.Module.parse(stream_ir), ir.Module.parse(hal_ir)
        module = _Module(
            executables={symbol_of(op): op for op in stream.body.operations if op.name.endswith(".executable")},
            parameters=parameter_names(stream),
            kernel_of_object={kernel.code.path.name: i for i, kernel in enumerate(kernels)},
            touched=touched,
        )
        functions = {symbol_of(op): op for op in stream.body.operations if op.name == "util.func"}
        result = {}
        for name, argument_names in arguments.items():
            function = functions[name + ASYNC_SUFFIX]
            reader = _EntryReader(name, argument_names, function, module, _workgroup_counts(hal, name))
            result[name] = reader.audit(exemptions)
        return result


@dataclass(frozen=True, slots=True)
class _Module:
    """What dispatches of all entry points refer to; ``kernel_of_object`` is by the code objects' file names."""

    executables: Mapping[str, ir.OpView]
    parameters: Mapping[str, str]
    kernel_of_object: Mapping[str, int]
    touched: Mapping[DispatchKey, Mapping[int, Touched]]


def _embedded_object(executable: ir.OpView) -> str | None:
    """File name of the code object of ours that the executable embeds, None for a compiled one."""
    for op in (executable.operation, *walk(executable)):
        for attribute in ("objects", "hal.executable.objects"):
            if attribute in op.attributes:
                return _OBJECT_FILE.search(str(op.attributes[attribute]))[1]
    return None


@dataclass(slots=True)
class _EntryReader:
    name: str
    arguments: Sequence[str]
    function: ir.OpView
    module: _Module
    workgroups: Mapping[str, list[tuple[int, ...]]]

    def audit(self, exemptions: Sequence[Exemption]) -> Audit:
        operations = list(walk(self.function))
        commands = [op for op in operations if op.name in (_COPY, _FILL, _DISPATCH)]
        copies = sum(op.name == _COPY for op in commands)
        fills = sum(op.name == _FILL for op in commands)
        dispatched = [i for i, op in enumerate(commands) if op.name == _DISPATCH]
        after = through(dependencies([self._accesses(op) for op in commands]), dispatched)
        taken = {symbol: iter(counts) for symbol, counts in self.workgroups.items()}
        dispatches, faults = [], ["copy"] * copies + ["fill"] * fills
        for index, before in zip(dispatched, after, strict=True):
            dispatch, moves_only = self._dispatch(commands[index], taken, before)
            dispatches.append(dispatch)
            if moves_only:
                faults.append(dispatch.name)
        return Audit(
            dispatches=tuple(dispatches),
            copies=copies,
            fills=fills,
            transient_bytes=passed_bytes(self.function) + sum(_transient_bytes(op) for op in operations),
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
                what = f"a {fault}" if fault in ("copy", "fill") else f"dispatch {fault}, which only moves data"
                raise AuditError(
                    f"{self.name}: the compiled module contains {what}; change the ops around it so that it is "
                    "not needed, or name it with a reason in the target's audit exemptions"
                )
            used.append(Exemption(fault, reasons[0]))
        return tuple(dict.fromkeys(used))

    def _dispatch(self, op: ir.Operation, taken, after: tuple[int, ...]) -> tuple[Dispatch, bool]:
        symbol, executable, embedded = self._executable(op)
        injected = re.fullmatch(r"predecode\.(\w+)\.\d+", symbol)
        workgroups = next(taken[symbol])
        # An executable of ours for the CPU is passed the offsets of its bindings, others their launch's constants.
        constants = () if injected else tuple(constant_of(value) for value in uniform_values(op))
        # Entry points of other row counts have kernels of the same name.
        function = symbol if injected else embedded
        touched = self.module.touched.get((function, constants, workgroups), {})
        bindings = tuple(self._bindings(op, touched))
        name = injected[1] if injected else symbol.removeprefix(f"{self.name}$async_")
        dispatch = Dispatch(
            name=shown_name(name) if embedded else name,
            kind="kernel" if embedded else "compiled",
            workgroups=workgroups,
            # A kernel that is given a buffer to write in place stores into it and does not read it.
            bytes_read=sum(b.bytes for b in bindings if b.access == "read"),
            bytes_written=sum(b.bytes for b in bindings if b.access != "read"),
            bindings=bindings,
            after=after,
            kernel=self.module.kernel_of_object.get(embedded),
        )
        return dispatch, embedded is None and not computes(executable)

    def _executable(self, op: ir.Operation) -> tuple[str, ir.OpView, str | None]:
        """The function that a dispatch calls, the executable it is in, and the code object that this embeds."""
        path = reference_of(next(iter(ir.ArrayAttr(op.attributes["entry_points"]))))
        executable = self.module.executables[path[0]]
        return path[-1], executable, _embedded_object(executable)

    def _bindings(self, op: ir.Operation, touched: Mapping[int, Touched]) -> Iterator[Binding]:
        _, executable, _ = self._executable(op)
        spans = accessed_spans(executable, op)
        spans = [replace(s, size=touched[i].bytes) if i in touched else s for i, s in enumerate(spans)]
        for i, (access, resource, _, length) in enumerate(_bound_ranges(op)):
            part = touched.get(i, Touched(length))
            size = sum(span.size for span in spans if span.binding == i) if spans else part.bytes
            yield Binding(self._source(resource), access, size, length if length > size else None, dict(part.parts))

    def _accesses(self, op: ir.Operation) -> list[Access]:
        """Buffer ranges that a command reads and writes."""
        if op.name == _COPY:
            # Operands: source, its size and offset, target, its size and offset, bytes.
            source, _, first, target, _, second, length = op.operands
            return [
                _access(source, constant_of(first), constant_of(length), reads=True),
                _access(target, constant_of(second), constant_of(length), writes=True, overwrites=True),
            ]
        if op.name == _FILL:
            target, _, first, length, _ = op.operands
            return [_access(target, constant_of(first), constant_of(length), writes=True, overwrites=True)]
        _, executable, embedded = self._executable(op)
        spans = accessed_spans(executable, op)
        accesses = []
        for i, (access, resource, offset, length) in enumerate(_bound_ranges(op)):
            # A kernel of ours does not read what it writes in place, and leaves the rest as it was.
            reads = access == "read" or (access == "read_write" and embedded is None)
            writes, overwrites = access != "read", access == "write"
            ranges = [(span.first, span.size) for span in spans if span.binding == i]
            if not ranges or any(first is None for first, _ in ranges):
                ranges = [(0, length)]
            accesses += [_access(resource, offset + first, size, reads, writes, overwrites) for first, size in ranges]
        return accesses

    def _source(self, resource: ir.Value) -> str:
        """Name of the argument or parameter that a resource comes from."""
        storage, _ = storage_of(resource)
        producer = storage.owner
        if producer.name == "stream.tensor.import":
            place = ir.BlockArgument(producer.operands[0]).arg_number
            return self.arguments[place] if place < len(self.arguments) else "transient"
        if producer.name == "util.global.load":
            symbol = reference_of(producer.attributes["global"])[0]
            return self.module.parameters.get(symbol, symbol)
        return "transient" if "transient" in str(storage.type) else "result"


def _access(resource: ir.Value, offset: int, length: int, reads=False, writes=False, overwrites=False) -> Access:
    storage, base = storage_of(resource)
    return Access(storage, base + offset, base + offset + length, reads, writes, overwrites)


def _bound_ranges(op: ir.Operation) -> Iterator[tuple[str, ir.Value, int, int]]:
    """Access, resource, first byte and bytes of each binding of a dispatch."""
    _, uniform, count, *_ = segments_of(op)
    operands = list(op.operands)[uniform:]
    for i, access in enumerate(ir.ArrayAttr(op.attributes["resource_accesses"])):
        offset, length = (constant_of(operands[part * count + i]) for part in (2, 3))
        yield ACCESSES[ir.IntegerAttr(access).value], operands[i], offset, length


def _transient_bytes(op: ir.Operation) -> int:
    if op.name != "stream.resource.alloca" or "transient" not in str(op.results[0].type):
        return 0
    return constant_of(op.operands[0])


def _workgroup_counts(hal: ir.Module, entry: str) -> dict[str, list[tuple[int, ...]]]:
    """Workgroups of each function that ``entry`` dispatches, in the order its command buffers record them."""
    recorders = re.compile(rf"_*{re.escape(entry)}\$async(_memoize_apply.*)?")
    counts: dict[str, list[tuple[int, ...]]] = {}
    for function in hal.body.operations:
        if function.name != "util.func" or not recorders.fullmatch(symbol_of(function)):
            continue
        for op in walk(function):
            if op.name == "hal.command_buffer.dispatch":
                symbol = reference_of(op.operands[2].owner.attributes["entry_point"])[-1]
                counts.setdefault(symbol, []).append(tuple(constant_of(op.operands[i]) for i in (3, 4, 5)))
    return counts
