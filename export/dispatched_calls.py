"""Independent op calls that become one dispatch, and its place in the module."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import iree.compiler.ir as ir

from predecode.custom_kernels.composition import Composition, Part
from predecode.custom_kernels.targets import Target
from predecode.custom_kernels.toolchain import CodeObject
from predecode.export.dispatch_mlir import DispatchText, cpu_dispatch, extern_dispatch
from predecode.export.tensor_types import builtin_type, meta_tensor
from predecode.export.touched import Touched
from predecode.export.traced_call import TracedCall


@dataclass(frozen=True)
class DispatchedCalls:
    """Calls that become one dispatch, by phase; a tensor that several of them read is bound once."""

    phases: Sequence[Sequence[TracedCall]]
    target: Target

    @cached_property
    def calls(self) -> list[TracedCall]:
        """All phases' calls."""
        return [call for phase in self.phases for call in phase]

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
                    unique.append(value)
        return unique

    @cached_property
    def _pointers(self) -> dict[ir.Value, int]:
        """The kernel's pointer for each tensor: operands, then results that have buffers of their own."""
        pointers = {value: i for i, value in enumerate(self.operands)}
        own = len(pointers)
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
        return Composition(phases, len(set(self._pointers.values())))

    def _part(self, call: TracedCall) -> Part:
        results = call.operation.results
        own = [self._pointers[result] for i, result in enumerate(results) if i not in call.op.in_place]
        written = frozenset(self._pointers[result] for result in results)
        return Part(call.launch, (*(self._pointers[value] for value in call.operands), *own), writes=written)

    def touched(self) -> dict[int, Touched]:
        """Of the operands of which all calls move only a part, by binding."""
        moved: dict[int, int] = {}
        for call in self.calls:
            for name, value in zip(call.launch.operands, call.operands, strict=True):
                index, whole = self._pointers[value], meta_tensor(value).nbytes
                moved[index] = max(moved.get(index, 0), call.touched.get(name, whole))
        whole = [meta_tensor(value).nbytes for value in self.operands]
        return {i: Touched(count) for i, count in moved.items() if i < len(whole) and count < whole[i]}

    def text(self, code: CodeObject) -> DispatchText:
        """The MLIR function that the calls become a call of."""
        operands = tuple(builtin_type(value) for value in self.operands)
        results = tuple(builtin_type(value) for value in self.results)
        if not self.target.has_hip_kernels:
            return cpu_dispatch(self.composition, self.target, code.path, operands, results, self.tied)
        return extern_dispatch(self.composition, self.target, code, operands, results, self.tied)

    def replace(self, function: str) -> None:
        """Call ``function`` where the last call stands, instead of all calls."""
        with ir.InsertionPoint(self.calls[-1].operation):
            operands = [
                ir.Operation.create("torch_c.to_builtin_tensor", [ir.Type.parse(builtin_type(v))], [v]).result
                for v in self.operands
            ]
            types = [ir.Type.parse(builtin_type(value)) for value in self.results]
            callee = {"callee": ir.FlatSymbolRefAttr.get(function)}
            called = ir.Operation.create("util.call", types, operands, callee)
            for old, new in zip(self.results, called.results, strict=True):
                old.replace_all_uses_with(ir.Operation.create("torch_c.from_builtin_tensor", [old.type], [new]).result)
        for call in reversed(self.calls):
            call.operation.erase()

    def globals(self) -> dict[str, str]:
        """Globals that `text` loads beyond the module's own, by name: their MLIR."""
        return {}
