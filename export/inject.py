"""Replaces the op calls that have kernels by dispatches, in the traced module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import iree.compiler.ir as ir
import torch

from predecode.custom_kernels.code_object import Kernel
from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import OPS, Op
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject, Toolchain
from predecode.export.dispatch_mlir import DispatchText, cpu_dispatch, extern_dispatch, signed
from predecode.export.schedule import Schedule, ScheduledCall, dispatches, levels
from predecode.export.trace import describe_call

_OPERATOR_PREFIX = "torch.predecode."
_SCALARS = {
    "torch.constant.int": lambda a: ir.IntegerAttr(a["value"]).value,
    "torch.constant.float": lambda a: ir.FloatAttr(a["value"]).value,
    "torch.constant.str": lambda a: ir.StringAttr(a["value"]).value,
    "torch.constant.bool": lambda a: bool(ir.IntegerAttr(a["value"]).value),
}
_DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f8E4M3FN": torch.float8_e4m3fn,
    "f8E4M3FNUZ": torch.float8_e4m3fnuz,
    "si8": torch.int8,
    "ui8": torch.uint8,
    "si32": torch.int32,
    "si64": torch.int64,
}
_BUILTIN_ELEMENTS = {"si8": "i8", "ui8": "i8", "si32": "i32", "si64": "i64"}


@dataclass(frozen=True, slots=True)
class InjectedKernel:
    """A kernel that a module embeds: how it is launched, its code, and what the code says of itself."""

    composition: Composition
    code: CodeObject
    kernel: Kernel | None
    """None for CPU objects, whose symbol is checked by the linker."""


DispatchKey = tuple[str, tuple[int, ...], tuple[int, ...]]
"""How the compiled schedule shows a dispatch: symbol, 32-bit constants, workgroups."""


@dataclass(frozen=True, slots=True)
class Injection:
    """What was put into a module. ``touched`` gives, for dispatches that move only a part of some bindings, the
    most bytes by binding index."""

    kernels: tuple[InjectedKernel, ...]
    touched: Mapping[DispatchKey, Mapping[int, int]]


def inject(
    module: ir.Operation, target: Target, toolchain: Toolchain, schedule: Schedule = Schedule.SERIAL
) -> Injection:
    """Replace every ``torch.predecode.*`` operator of ``module``, in place.

    Calls of one function that ``schedule`` puts together become one dispatch where the target's kernels can be
    composed (see `Composition`).
    """
    built: dict[Composition, InjectedKernel] = {}
    touched: dict[DispatchKey, Mapping[int, int]] = {}
    functions: dict[DispatchText, str] = {}
    with module.context, ir.Location.unknown():
        for block in _blocks_of_operators(module):
            for calls in _dispatched_together(block, target, schedule):
                dispatch = _Dispatch(calls)
                composition = dispatch.composition
                if composition not in built:
                    built[composition] = _build(composition, target, toolchain)
                text = dispatch.text(target, built[composition].code)
                name = functions.setdefault(text, f"predecode.{composition.symbol}.{len(functions)}")
                touched_bytes = dispatch.touched()
                dispatch.replace(name)
                symbol = composition.symbol if target.has_hip_kernels else name
                constants = tuple(signed(c) for c in composition.constants) if target.has_hip_kernels else ()
                touched[symbol, constants, composition.workgroups] = touched_bytes
        _append(module, functions)
    # Dispatches that differ in constants or grid alone share their code.
    kernels = {(kernel.composition.symbol, kernel.code.sha256): kernel for kernel in built.values()}
    return Injection(tuple(kernels[key] for key in sorted(kernels)), touched)


def _build(composition: Composition, target: Target, toolchain: Toolchain) -> InjectedKernel:
    code = toolchain.build(composition, target)
    kernel = check_launch(code, composition, target) if target.has_hip_kernels else None
    return InjectedKernel(composition, code, kernel)


def _dispatched_together(block: ir.Block, target: Target, schedule: Schedule) -> list[tuple["_TracedCall", ...]]:
    """The calls of ``block`` by dispatch. The block's operations are sorted so that each dispatch can stand where
    its last call does."""
    calls, of_operation, sources = [], {}, {}
    for operation in block.operations:
        used = frozenset().union(*(sources.get(v.owner, frozenset()) for v in operation.operands))
        if _is_ours(operation.operation):
            call = _TracedCall.read(operation.operation, target)
            of_operation[operation.operation] = len(calls)
            calls.append((call, used))
            used = frozenset([of_operation[operation.operation]])
        sources[operation.operation] = used
    if not target.has_hip_kernels:
        return [(call,) for call, _ in calls]
    scheduled = [ScheduledCall(used, call.launch.workgroup_size) for call, used in calls]
    level_of = levels(scheduled)
    _sort(block, lambda operation: _level_order(operation, of_operation, sources, level_of))
    return [tuple(calls[i][0] for i in group) for group in dispatches(scheduled, schedule)]


def _level_order(operation, of_operation, sources, level_of) -> tuple[int, bool]:
    """Calls come first of their level, then what reads them."""
    if operation in of_operation:
        return level_of[of_operation[operation]], False
    return max((level_of[i] for i in sources[operation]), default=0), True


def _sort(block: ir.Block, order) -> None:
    *operations, terminator = (operation.operation for operation in block.operations)
    for operation in sorted(operations, key=order):
        operation.move_before(terminator)


def _operator_name(operation: ir.Operation) -> str:
    return ir.StringAttr(operation.attributes["name"]).value


def _is_ours(operation: ir.Operation) -> bool:
    return operation.name == "torch.operator" and _operator_name(operation).startswith(_OPERATOR_PREFIX)


def _blocks_of_operators(root: ir.Operation) -> list[ir.Block]:
    """Blocks that hold calls of ours, each once: the bodies of the entry points."""
    blocks = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        if _is_ours(operation) and operation.block not in blocks:
            blocks.append(operation.block)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return blocks


@dataclass(frozen=True, slots=True)
class _TracedCall:
    """A ``torch.operator`` of ours and its launch. ``tensors`` are the places of its tensors among its operands."""

    op: Op
    operation: ir.Operation
    tensors: Mapping[str, int]
    launch: Launch
    touched: Mapping[str, int]

    @classmethod
    def read(cls, operation: ir.Operation, target: Target) -> "_TracedCall":
        name = _operator_name(operation).removeprefix(_OPERATOR_PREFIX)
        op = OPS[name.removesuffix(".default")]
        tensors, arguments = {}, []
        schema = op.overload._schema.arguments
        for i, (argument, value) in enumerate(zip(schema, operation.operands, strict=True)):
            producer = value.owner
            kind = producer.name if isinstance(producer, (ir.Operation, ir.OpView)) else ""
            if kind in _SCALARS:
                arguments.append(_SCALARS[kind](producer.attributes))
            else:
                tensors[argument.name] = i
                arguments.append(_meta(value))
        described = describe_call(op, arguments, tuple(_meta(r) for r in operation.results))
        launch = op.launch_on(target, described)
        return cls(op, operation, tensors, launch, op.touched_bytes(described))

    def tensor(self, name: str) -> ir.Value:
        """The tensor argument ``name``, as it stands in the module now."""
        return self.operation.operands[self.tensors[name]]

    @property
    def operands(self) -> list[ir.Value]:
        """The tensors that the kernel receives, in its order."""
        return [self.tensor(name) for name in self.launch.operands]


@dataclass(frozen=True)
class _Dispatch:
    """Calls that become one dispatch; a tensor that several of them read is bound once."""

    calls: Sequence[_TracedCall]

    @cached_property
    def operands(self) -> list[ir.Value]:
        """Tensors that the dispatch reads or writes in place."""
        unique: list[ir.Value] = []
        for call in self.calls:
            unique += [value for value in call.operands if value not in unique]
        return unique

    @cached_property
    def results(self) -> list[ir.Value]:
        """Results of all calls, in order."""
        return [result for call in self.calls for result in call.operation.results]

    @cached_property
    def tied(self) -> dict[int, int]:
        """Operand that each result written in place reuses."""
        tied, first = {}, 0
        for call in self.calls:
            for result, argument in call.op.in_place.items():
                tied[first + result] = self.operands.index(call.tensor(argument))
            first += len(call.operation.results)
        return tied

    @cached_property
    def composition(self) -> Composition:
        """The parts, each with the pointers of its operands, then of its results that have buffers of their own."""
        pointer = len(self.operands)
        parts = []
        for call in self.calls:
            own = len(call.operation.results) - len(call.op.in_place)
            operands = (self.operands.index(value) for value in call.operands)
            parts.append(Part(call.launch, (*operands, *range(pointer, pointer + own))))
            pointer += own
        return Composition(tuple(parts), pointer)

    def touched(self) -> dict[int, int]:
        """Bytes of the operands of which all calls move only a part, by binding."""
        moved: dict[int, int] = {}
        for call in self.calls:
            for name, value in zip(call.launch.operands, call.operands, strict=True):
                index, whole = self.operands.index(value), _meta(value).nbytes
                moved[index] = max(moved.get(index, 0), call.touched.get(name, whole))
        return {i: count for i, count in moved.items() if count < _meta(self.operands[i]).nbytes}

    def text(self, target: Target, code: CodeObject) -> DispatchText:
        """The MLIR function that the calls become a call of."""
        operands = tuple(_builtin_type(value) for value in self.operands)
        results = tuple(_builtin_type(value) for value in self.results)
        writer = extern_dispatch if target.has_hip_kernels else cpu_dispatch
        return writer(self.composition, target, code.path, operands, results, self.tied)

    def replace(self, function: str) -> None:
        """Call ``function`` where the last call stands, instead of all calls."""
        with ir.InsertionPoint(self.calls[-1].operation):
            operands = [
                ir.Operation.create("torch_c.to_builtin_tensor", [ir.Type.parse(_builtin_type(v))], [v]).result
                for v in self.operands
            ]
            types = [ir.Type.parse(_builtin_type(value)) for value in self.results]
            callee = {"callee": ir.FlatSymbolRefAttr.get(function)}
            called = ir.Operation.create("util.call", types, operands, callee)
            for old, new in zip(self.results, called.results, strict=True):
                old.replace_all_uses_with(
                    ir.Operation.create("torch_c.from_builtin_tensor", [old.type], [new]).result
                )
        for call in self.calls:
            call.operation.erase()


def _meta(value: ir.Value) -> torch.Tensor:
    shape, element = _shape_and_element(value)
    return torch.empty(shape, dtype=_DTYPES[element], device="meta")


def _builtin_type(value: ir.Value) -> str:
    shape, element = _shape_and_element(value)
    extents = "".join(f"{extent}x" for extent in shape)
    return f"tensor<{extents}{_BUILTIN_ELEMENTS.get(element, element)}>"


def _shape_and_element(value: ir.Value) -> tuple[tuple[int, ...], str]:
    # "!torch.vtensor<[4,8],f32>"; torch types have no Python accessors in this compiler.
    text = str(value.type)
    shape, element = text.removeprefix("!torch.vtensor<[").removesuffix(">").split("],")
    return tuple(int(extent) for extent in shape.split(",") if extent), element


def _append(module: ir.Operation, functions: Mapping[DispatchText, str]) -> None:
    """Parse the dispatch functions and move them into ``module``."""
    text = "\n".join(dispatch.module_text(name) for dispatch, name in functions.items())
    library = ir.Module.parse(text)
    body = module.regions[0].blocks[0]
    for operation in list(library.body.operations):
        body.append(operation.operation.detach_from_parent())
