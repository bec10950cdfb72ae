"""Torch modules -> one MLIR module with an entry point per program, parameters external.

Ops that have a kernel for the target stay as single operations; the others are replaced by their references.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import iree.compiler.ir as ir
import torch

from predecode.custom_kernels.op import OPS, Call, Op
from predecode.custom_kernels.targets import Target
from predecode.export.turbine import ExportTargetDef, ExternalTensorTrait, aot

PARAMETER_SCOPE = "model"


@dataclass(frozen=True, slots=True)
class Program:
    """One entry point: a module, and example arguments that fix its shapes and dtypes."""

    name: str
    module: torch.nn.Module
    arguments: tuple[torch.Tensor, ...]


def describe_call(op: Op, arguments: Sequence, results) -> Call:
    """The `Call` of ``op`` on positional ``arguments`` in schema order."""
    names = [argument.name for argument in op.overload._schema.arguments]
    return Call(dict(zip(names, arguments, strict=True)), results if isinstance(results, tuple) else (results,))


def trace(programs: Sequence[Program], target: Target, on_program: Callable[[str], None]) -> ir.Operation:
    """Export ``programs`` into one module. ``on_program`` is told each name before it is traced.

    Parameters and buffers become external parameters of scope ``model``, named as in the module's state_dict.
    """
    table = {op.overload: _reference_unless_kernel(op, target) for op in OPS.values()}
    exported = aot.FxPrograms()
    for program in programs:
        on_program(program.name)
        for name, tensor in program.module.state_dict(keep_vars=True).items():
            ExternalTensorTrait(PARAMETER_SCOPE, name).set(tensor)
        with torch.no_grad():
            traced = torch.export.export(program.module, program.arguments, strict=False)
            exported.programs[program.name] = ExportTargetDef(traced.run_decompositions(table))
    return aot.export(exported).mlir_module


def _reference_unless_kernel(op: Op, target: Target) -> Callable:
    """Decomposition of ``op``: its reference, or nothing (the call is kept) where the target has a kernel."""

    def decompose(*arguments):
        fake_results = op.fake(*arguments)
        if op.launch_on(target, describe_call(op, arguments, fake_results)):
            return NotImplemented
        return op.reference(*arguments)

    return decompose
