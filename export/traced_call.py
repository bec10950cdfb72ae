"""Op calls as they stand in a traced module."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import iree.compiler.ir as ir

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import OPS, Call, Op
from predecode.custom_kernels.targets import Target
from predecode.export.tensor_types import meta_tensor, traced_type
from predecode.export.trace import describe_call

_OPERATOR_PREFIX = "torch.predecode."
_LAYER = re.compile(r"layers\.(\d+)\.")
_SCALARS = {
    "torch.constant.int": lambda a: ir.IntegerAttr(a["value"]).value,
    "torch.constant.float": lambda a: ir.FloatAttr(a["value"]).value,
    "torch.constant.str": lambda a: ir.StringAttr(a["value"]).value,
    "torch.constant.bool": lambda a: bool(ir.IntegerAttr(a["value"]).value),
}


def _operator_name(operation: ir.Operation) -> str:
    return ir.StringAttr(operation.attributes["name"]).value


def is_op_call(operation: ir.Operation) -> bool:
    """Whether ``operation`` calls an op of ours."""
    return operation.name == "torch.operator" and _operator_name(operation).startswith(_OPERATOR_PREFIX)


def op_of(operation: ir.Operation) -> Op:
    """The op that ``operation`` calls."""
    name = _operator_name(operation).removeprefix(_OPERATOR_PREFIX)
    return OPS[name.removesuffix(".default")]


def arguments_of(operation: ir.Operation) -> dict[str, ir.Value]:
    """The arguments that ``operation`` calls its op with, by name."""
    names = [argument.name for argument in op_of(operation).overload._schema.arguments]
    return dict(zip(names, operation.operands, strict=True))


def described(operation: ir.Operation) -> Call:
    """The call that ``operation`` makes."""
    results = tuple(meta_tensor(result) for result in operation.results)
    return describe_call(op_of(operation), _described(operation.operands), results)


def create_call(op: Op, arguments: Mapping[str, ir.Value], before: ir.Operation) -> ir.Operation:
    """A call of ``op`` before ``before``; of ``arguments`` it takes those that it has."""
    operands = [arguments[argument.name] for argument in op.overload._schema.arguments]
    name = {"name": ir.StringAttr.get(f"{_OPERATOR_PREFIX}{op.name}", before.context)}
    made = op.fake(*_described(operands))
    with before.context, ir.InsertionPoint(before):
        types = [ir.Type.parse(traced_type(result)) for result in (made if isinstance(made, tuple) else (made,))]
        return ir.Operation.create("torch.operator", types, operands, name, loc=before.location)


def _described(operands: Iterable[ir.Value]) -> list:
    return [_scalar_of(value) if _is_scalar(value) else meta_tensor(value) for value in operands]


def _is_scalar(value: ir.Value) -> bool:
    return isinstance(value.owner, (ir.Operation, ir.OpView)) and value.owner.name in _SCALARS


def _scalar_of(value: ir.Value):
    return _SCALARS[value.owner.name](value.owner.attributes)


def parameter_of(value: ir.Value) -> str:
    """Name of the parameter that ``value`` is, empty where it is none."""
    if isinstance(value.owner, ir.Block) or value.owner.name != "torch_c.from_builtin_tensor":
        return ""
    source = value.owner.operands[0].owner
    loaded = not isinstance(source, ir.Block) and source.name == "util.global.load"
    return str(source.attributes["global"]).removeprefix("@").strip('"').removeprefix("__auto.") if loaded else ""


@dataclass(frozen=True, slots=True)
class TracedCall:
    """A ``torch.operator`` of ours and its launch. ``tensors`` are the places of its tensors among its operands."""

    op: Op
    operation: ir.Operation
    tensors: Mapping[str, int]
    launch: Launch
    touched: Mapping[str, int]

    @classmethod
    def read(cls, operation: ir.Operation, target: Target) -> "TracedCall":
        """The call ``operation`` makes, with its launch on ``target``."""
        op, call = op_of(operation), described(operation)
        places = enumerate(arguments_of(operation).items())
        tensors = {name: i for i, (name, value) in places if not _is_scalar(value)}
        return cls(op, operation, tensors, op.launch_on(target, call), op.touched_bytes(call))

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
            named = _LAYER.search(parameter_of(value))
            if named:
                return int(named[1])
        return None
