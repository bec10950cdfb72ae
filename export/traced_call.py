"""Op calls as they stand in a traced module."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import iree.compiler.ir as ir

from predecode.custom_kernels.launch import Launch
from predecode.custom_kernels.op import OPS, Op
from predecode.custom_kernels.targets import Target
from predecode.export.tensor_types import meta_tensor
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
                arguments.append(meta_tensor(value))
        described = describe_call(op, arguments, tuple(meta_tensor(r) for r in operation.results))
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
            named = _LAYER.search(parameter_of(value))
            if named:
                return int(named[1])
        return None
