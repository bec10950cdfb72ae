"""Replaces each op call that has a kernel by its dispatch, in the traced module."""

from collections.abc import Mapping
from dataclasses import dataclass

import iree.compiler.ir as ir
import torch

from predecode.custom_kernels.code_object import Kernel
from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.launch_check import check_launch
from predecode.custom_kernels.op import OPS, Op
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject, Toolchain
from predecode.export.dispatch_mlir import DispatchText, cpu_dispatch, extern_dispatch, signed
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

    launch: Launch
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


def inject(module: ir.Operation, target: Target, toolchain: Toolchain) -> Injection:
    """Replace every ``torch.predecode.*`` operator of ``module``, in place."""
    kernels: dict[tuple, InjectedKernel] = {}
    touched: dict[DispatchKey, Mapping[int, int]] = {}
    functions: dict[DispatchText, str] = {}
    with module.context, ir.Location.unknown():
        for operation in _operators(module):
            call = _TracedCall.read(operation)
            described = call.describe()
            launch = call.op.launch_on(target, described)
            pointers = call.pointers(len(launch.operands))
            key = (launch.source, launch.symbol, launch.defines, pointers)
            if key not in kernels:
                kernels[key] = _build(launch, target, toolchain, pointers)
            text = call.dispatch(launch, target, kernels[key].code)
            name = functions.setdefault(text, f"predecode.{call.op.name}.{len(functions)}")
            _replace(operation, name, call, launch)
            symbol = launch.symbol if target.has_hip_kernels else name
            constants = tuple(signed(c) for c in launch.constants) if target.has_hip_kernels else ()
            touched[symbol, constants, launch.workgroups] = {
                launch.operands.index(name): count for name, count in call.op.touched_bytes(described).items()
            }
        _append(module, functions)
    return Injection(tuple(kernels[key] for key in sorted(kernels, key=str)), touched)


def _build(launch: Launch, target: Target, toolchain: Toolchain, pointers: int) -> InjectedKernel:
    code = toolchain.build(launch, target)
    kernel = check_launch(code, launch, target, pointers) if target.has_hip_kernels else None
    return InjectedKernel(launch, code, kernel)


def _operator_name(operation: ir.Operation) -> str:
    return ir.StringAttr(operation.attributes["name"]).value


def _operators(root: ir.Operation) -> list[ir.Operation]:
    found = []

    def visit(operation: ir.Operation) -> ir.WalkResult:
        ours = operation.name == "torch.operator" and _operator_name(operation).startswith(_OPERATOR_PREFIX)
        if ours:
            found.append(operation)
        return ir.WalkResult.ADVANCE

    root.walk(visit)
    return found


@dataclass(frozen=True, slots=True)
class _TracedCall:
    """A ``torch.operator`` of ours with its operands sorted into tensors and constants."""

    op: Op
    tensors: Mapping[str, ir.Value]
    constants: Mapping[str, object]
    results: tuple[ir.Value, ...]

    @classmethod
    def read(cls, operation: ir.Operation) -> "_TracedCall":
        name = _operator_name(operation).removeprefix(_OPERATOR_PREFIX)
        op = OPS[name.removesuffix(".default")]
        tensors, constants = {}, {}
        arguments = op.overload._schema.arguments
        for argument, value in zip(arguments, operation.operands, strict=True):
            producer = value.owner
            kind = producer.name if isinstance(producer, (ir.Operation, ir.OpView)) else ""
            if kind in _SCALARS:
                constants[argument.name] = _SCALARS[kind](producer.attributes)
            else:
                tensors[argument.name] = value
        return cls(op, tensors, constants, tuple(operation.results))

    def pointers(self, operands: int) -> int:
        """Buffers that a kernel with so many operands receives: results written in place share an operand's."""
        return operands + len(self.results) - len(self.op.in_place)

    def describe(self):
        """The call with tensors without data, as launch rules read it."""
        arguments = [
            self.constants[a.name] if a.name in self.constants else _meta(self.tensors[a.name])
            for a in self.op.overload._schema.arguments
        ]
        return describe_call(self.op, arguments, tuple(_meta(r) for r in self.results))

    def dispatch(self, launch: Launch, target: Target, code: CodeObject) -> DispatchText:
        operands = tuple(_builtin_type(self.tensors[name]) for name in launch.operands)
        results = tuple(_builtin_type(value) for value in self.results)
        tied = {i: launch.operands.index(name) for i, name in self.op.in_place.items()}
        writer = extern_dispatch if target.has_hip_kernels else cpu_dispatch
        return writer(launch, target, code.path, operands, results, tied)


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


def _replace(operation: ir.Operation, function: str, call: _TracedCall, launch: Launch) -> None:
    with ir.InsertionPoint(operation):
        operands = [
            ir.Operation.create(
                "torch_c.to_builtin_tensor", [ir.Type.parse(_builtin_type(value))], [value]
            ).result
            for value in (call.tensors[name] for name in launch.operands)
        ]
        types = [ir.Type.parse(_builtin_type(value)) for value in call.results]
        called = ir.Operation.create(
            "util.call", types, operands, {"callee": ir.FlatSymbolRefAttr.get(function)}
        )
        for old, new in zip(call.results, called.results, strict=True):
            old.replace_all_uses_with(
                ir.Operation.create("torch_c.from_builtin_tensor", [old.type], [new]).result
            )
    operation.erase()


def _append(module: ir.Operation, functions: Mapping[DispatchText, str]) -> None:
    """Parse the dispatch functions and move them into ``module``."""
    text = "\n".join(dispatch.module_text(name) for dispatch, name in functions.items())
    library = ir.Module.parse(text)
    body = module.regions[0].blocks[0]
    for operation in list(library.body.operations):
        body.append(operation.operation.detach_from_parent())
