"""Replaces the op calls that have kernels by dispatches, in the traced module."""

import re
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
from predecode.custom_kernels.targets import RESIDENT_PER_UNIT, Target
from predecode.custom_kernels.toolchain import CodeObject, Toolchain
from predecode.export.dispatch_mlir import GRID_BARRIER, DispatchText, cpu_dispatch, extern_dispatch, signed
from predecode.export.schedule import Fusion, Schedule, ScheduledCall, dispatches, fused, levels
from predecode.export.trace import describe_call
from predecode.pipelines.errors import PredecodeError

_OPERATOR_PREFIX = "torch.predecode."
_LAYER = re.compile(r"layers\.(\d+)\.")
_SCALARS = {
    "torch.constant.int": lambda a: ir.IntegerAttr(a["value"]).value,
    "torch.constant.float": lambda a: ir.FloatAttr(a["value"]).value,
    "torch.constant.str": lambda a: ir.StringAttr(a["value"]).value,
    "torch.constant.bool": lambda a: bool(ir.IntegerAttr(a["value"]).value),
}
_DTYPES = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
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
    module: ir.Operation,
    target: Target,
    toolchain: Toolchain,
    schedule: Schedule = Schedule.SERIAL,
    fusion: Fusion = Fusion.NONE,
) -> Injection:
    """Replace every ``torch.predecode.*`` operator of ``module``, in place.

    Calls of one function that ``schedule`` and ``fusion`` put together become one dispatch where the target's
    kernels can be composed (see `Composition`).
    """
    built: dict[Composition, InjectedKernel] = {}
    touched: dict[DispatchKey, Mapping[int, int]] = {}
    functions: dict[DispatchText, str] = {}
    with module.context, ir.Location.unknown():
        for block in _blocks_of_operators(module):
            for phases in _dispatched_together(block, target, schedule, fusion):
                dispatch = _Dispatch(phases, target)
                composition = dispatch.composition
                if composition not in built:
                    built[composition] = _build(composition, target, toolchain)
                text = dispatch.text(built[composition].code)
                name = functions.setdefault(text, f"predecode.{composition.symbol}.{len(functions)}")
                touched_bytes = dispatch.touched()
                dispatch.replace(name)
                symbol = composition.symbol if target.has_hip_kernels else name
                constants = tuple(signed(c) for c in composition.constants) if target.has_hip_kernels else ()
                touched[symbol, constants, composition.workgroups] = touched_bytes
        _append(module, functions, any(composition.resident for composition in built))
    # Dispatches that differ in constants or grid alone share their code.
    kernels = {(kernel.composition.symbol, kernel.code.sha256): kernel for kernel in built.values()}
    return Injection(tuple(kernels[key] for key in sorted(kernels)), touched)


def _build(composition: Composition, target: Target, toolchain: Toolchain) -> InjectedKernel:
    code = toolchain.build(composition, target)
    kernel = check_launch(code, composition, target) if target.has_hip_kernels else None
    return InjectedKernel(composition, code, kernel)


def _dispatched_together(
    block: ir.Block, target: Target, schedule: Schedule, fusion: Fusion
) -> list[tuple[tuple["_TracedCall", ...], ...]]:
    """The calls of ``block`` by dispatch and phase. The block's operations are sorted so that each dispatch can
    stand where its last call does."""
    calls, scheduled, of_operation, sources = [], [], {}, {}
    for operation in block.operations:
        used = frozenset().union(*(sources.get(v.owner, frozenset()) for v in operation.operands))
        if _is_ours(operation.operation):
            call = _TracedCall.read(operation.operation, target)
            layers = [call.layer, *(scheduled[source].layer for source in used)]
            layer = max((layer for layer in layers if layer is not None), default=None)
            of_operation[operation.operation] = len(calls)
            calls.append(call)
            scheduled.append(ScheduledCall(used, call.launch.workgroup_size, layer))
            used = frozenset([len(calls) - 1])
        sources[operation.operation] = used
    if not target.has_hip_kernels:
        return [((call,),) for call in calls]
    level_of = levels(scheduled)
    _sort(block, lambda operation: _level_order(operation, of_operation, sources, level_of))
    groups = fused(scheduled) if fusion is Fusion.LAYER else [(g,) for g in dispatches(scheduled, schedule)]
    return [tuple(tuple(calls[i] for i in phase) for phase in phases) for phases in groups]


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

    @property
    def layer(self) -> int | None:
        """The model layer whose weights the call reads, from the parameters' names."""
        for value in self.operands:
            named = _LAYER.search(_parameter_of(value))
            if named:
                return int(named[1])
        return None


@dataclass(frozen=True)
class _Dispatch:
    """Calls that become one dispatch, by phase; a tensor that several of them read is bound once."""

    phases: Sequence[Sequence[_TracedCall]]
    target: Target

    @cached_property
    def calls(self) -> list[_TracedCall]:
        """All phases' calls."""
        return [call for phase in self.phases for call in phase]

    @property
    def is_resident(self) -> bool:
        """Whether phases follow each other, with barriers of the grid between them."""
        return len(self.phases) > 1

    @cached_property
    def results(self) -> list[ir.Value]:
        """Results of all calls, in order."""
        return [result for call in self.calls for result in call.operation.results]

    @cached_property
    def operands(self) -> list[ir.Value]:
        """Tensors that the dispatch reads or writes in place."""
        unique: list[ir.Value] = []
        for call in self.calls:
            for value in call.operands:
                if value not in unique and value not in self.results:
                    self._require_no_way_back(value, call)
                    unique.append(value)
        return unique

    def _require_no_way_back(self, value: ir.Value, call: _TracedCall) -> None:
        """Refuse an operand that another operation makes from results of this very dispatch."""
        waiting, seen = [value], set()
        while waiting:
            owner = waiting.pop().owner
            if isinstance(owner, ir.Block) or owner in seen:
                continue
            seen.add(owner)
            for operand in owner.operands:
                if operand in self.results:
                    raise PredecodeError(
                        f"{call.op.name} cannot be fused with what comes before it: {owner.name}, which has no kernel "
                        f"for {self.target.name}, stands between them; export without --fuse"
                    )
                waiting.append(operand)

    @cached_property
    def _pointers(self) -> dict[ir.Value, int]:
        """The kernel's pointer for each tensor: operands, then results that have buffers of their own."""
        pointers = {value: i for i, value in enumerate(self.operands)}
        own = len(pointers) + self.is_resident  # the barrier follows the operands
        for call in self.calls:
            for i, result in enumerate(call.operation.results):
                if i in call.op.in_place:
                    pointers[result] = pointers[call.tensor(call.op.in_place[i])]
                else:
                    pointers[result] = own
                    own += 1
        return pointers

    @cached_property
    def tied(self) -> dict[int, int]:
        """Operand that each result written in place reuses."""
        pointers = [self._pointers[result] for result in self.results]
        return {i: pointer for i, pointer in enumerate(pointers) if pointer < len(self.operands)}

    @cached_property
    def composition(self) -> Composition:
        """The parts, each with the pointers of its operands, then of its results that have buffers of their own."""
        phases = tuple(tuple(self._part(call) for call in phase) for phase in self.phases)
        pointers = len(set(self._pointers.values())) + self.is_resident
        if not self.is_resident:
            return Composition(phases, pointers)
        resident = self.target.compute_units * RESIDENT_PER_UNIT
        return Composition(phases, pointers, resident, barrier=len(self.operands))

    def _part(self, call: _TracedCall) -> Part:
        results = call.operation.results
        own = [self._pointers[result] for i, result in enumerate(results) if i not in call.op.in_place]
        written = frozenset(self._pointers[result] for result in results)
        return Part(call.launch, (*(self._pointers[value] for value in call.operands), *own), written)

    def touched(self) -> dict[int, int]:
        """Bytes of the operands of which all calls move only a part, by binding."""
        moved: dict[int, int] = {}
        for call in self.calls:
            for name, value in zip(call.launch.operands, call.operands, strict=True):
                index, whole = self._pointers[value], _meta(value).nbytes
                moved[index] = max(moved.get(index, 0), call.touched.get(name, whole))
        whole = [_meta(value).nbytes for value in self.operands]
        return {i: count for i, count in moved.items() if i < len(whole) and count < whole[i]}

    def text(self, code: CodeObject) -> DispatchText:
        """The MLIR function that the calls become a call of."""
        operands = tuple(_builtin_type(value) for value in self.operands)
        results = tuple(_builtin_type(value) for value in self.results)
        if not self.target.has_hip_kernels:
            return cpu_dispatch(self.composition, self.target, code.path, operands, results, self.tied)
        return extern_dispatch(self.composition, self.target, code.path, operands, results, self.tied)

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
        for call in reversed(self.calls):
            call.operation.erase()


def _parameter_of(value: ir.Value) -> str:
    """Name of the global that ``value`` is loaded from, empty where it is none."""
    if isinstance(value.owner, ir.Block) or value.owner.name != "torch_c.from_builtin_tensor":
        return ""
    source = value.owner.operands[0].owner
    loaded = not isinstance(source, ir.Block) and source.name == "util.global.load"
    return str(source.attributes["global"]) if loaded else ""


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


def _append(module: ir.Operation, functions: Mapping[DispatchText, str], with_barrier: bool) -> None:
    """Parse the dispatch functions and move them into ``module``, with the barrier that resident grids use."""
    texts = [dispatch.module_text(name) for dispatch, name in functions.items()]
    library = ir.Module.parse("\n".join([GRID_BARRIER] * with_barrier + texts))
    body = module.regions[0].blocks[0]
    first = body.operations[0]
    for operation in list(library.body.operations):
        detached = operation.operation.detach_from_parent()
        body.append(detached)
        if detached.name == "util.global":  # the compiler wants globals before the functions that store to them
            detached.move_before(first)
